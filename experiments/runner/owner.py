"""Owner of a claim: a process of this or another machine."""

import contextlib
import dataclasses
import functools
import json
import os
import socket
import uuid
from pathlib import Path
from typing import Any

LEASE = 60.0  # seconds without a change after which a claim is void


@functools.cache
def machine() -> str:
  """Returns what all processes share that see each other's process ids."""
  try:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {os.readlink('/proc/self/ns/pid')}"
  except OSError:  # another system than Linux
    return f"{socket.gethostname()} {uuid.getnode():x}"


def started(pid: int) -> str:
  """Returns when a process of this machine began, "" for one that has ended."""
  try:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]
  except OSError:
    if Path("/proc/self/stat").exists():
      return ""
  try:
    os.kill(pid, 0)
  except OSError:
    return ""
  return "unknown"


@dataclasses.dataclass(frozen=True)
class Owner:
  """The process that holds a claim, as the file names it.

  machine    what `machine` returned there
  started    what `started` returned there
  token      unique to the claim
  lease      seconds after which it is void without a change
  released   whether the owner gave it back

  >>> text = json.dumps({"host": "a", "pid": 7, "token": "t", "lease": 60})
  >>> owner = Owner.read(text.encode())
  >>> owner.host, owner.lease, owner.ended
  ('a', 60.0, False)
  """

  host: str = ""
  pid: int = 0
  machine: str = ""
  started: str = ""
  token: str = ""
  lease: float = LEASE
  released: bool = False

  @classmethod
  def read(cls, content: bytes) -> "Owner":
    """Returns the owner in a file; an unknown one where it is not (yet) written."""
    names = {name: type(value) for name, value in dataclasses.asdict(cls()).items()}
    with contextlib.suppress(ValueError, TypeError, AttributeError):
      there: dict[str, Any] = json.loads(content)
      return cls(**{k: names[k](v) for k, v in there.items() if k in names})
    return cls()

  @classmethod
  def this_process(cls, lease: float) -> "Owner":
    """Returns this process as the owner of a new claim."""
    return cls(
      host=socket.gethostname(),
      pid=os.getpid(),
      machine=machine(),
      started=started(os.getpid()),
      token=uuid.uuid4().hex,
      lease=lease,
    )

  @property
  def is_this_process(self) -> bool:
    """Whether it is this process, perhaps by another claim."""
    return self.machine == machine() and self.pid == os.getpid()

  @property
  def ended(self) -> bool:
    """Whether it was a process of this machine that has ended."""
    return self.machine == machine() and started(self.pid) != self.started
