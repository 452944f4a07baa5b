"""Locks of folders: one process at a time, of one machine or of several.

`flock` is the lock on one machine, which the kernel drops at once when a process dies;
a claim (claims.py) holds over shared file systems, where `flock` may not.
"""

import contextlib
import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.runner import claims
from experiments.runner.claims import LostError
from experiments.runner.owner import LEASE
from transformer_jax.training.json_files import warn

__all__ = ["LostError", "check", "claim", "is_stopped", "this_process", "use_lease"]

POLL, REPORT = 0.1, 10.0  # seconds between attempts, and between messages
# A file system without `flock` (Lustre's default, some of FUSE): the claim alone holds.
NO_FLOCK = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)

_lease = [LEASE]  # of the claims of this process
check = claims.check


def use_lease(seconds: float) -> None:
  """Sets the lease of the claims that this process takes from now on; 0: default."""
  _lease[:] = [seconds or LEASE]


@contextlib.contextmanager
def claim(folder: Path, wait: bool = False) -> Iterator[bool]:
  """Holds a folder's lock; yields whether this process got it.

  wait   for another process to release it, instead of yielding False
  """
  folder.mkdir(parents=True, exist_ok=True)
  held = _waited(folder) if wait else _try(folder)
  try:
    yield held is not None
  finally:
    if held is not None:
      held.close()


def _waited(folder: Path) -> contextlib.ExitStack:
  began = time.monotonic()
  while (held := _try(folder)) is None:
    time.sleep(POLL)
    if time.monotonic() - began >= REPORT:
      warn(f"waiting for {_holder(folder)} that holds {folder / 'lock'}")
      began = time.monotonic()
  return held


def _holder(folder: Path) -> str:
  owner = claims.holder(folder)
  if owner is None or not owner.pid:
    return "another process"
  return f"process {owner.pid} on {owner.host}"


def _try(folder: Path) -> contextlib.ExitStack | None:
  """Returns what gives lock and claim back, None where another process has either."""
  if (lock := _flock(folder / "lock")) is None:
    return None
  held = contextlib.ExitStack()
  held.callback(os.close, lock)
  try:
    mine = claims.take(folder, _lease[0])
  except PermissionError:  # a folder that is read-only: there is nothing to write
    return held
  except BaseException:
    held.close()
    raise
  if mine is None:
    held.close()
    return None
  held.callback(claims.release, mine)  # before the lock
  return held


def _flock(path: Path) -> int | None:
  """Returns a descriptor of the locked file, None where another process has it."""
  lock = _open(path)
  try:
    with _no_flock():
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    # If the file was removed meanwhile, others lock the new one.
    if path.exists() and os.path.samestat(os.fstat(lock), path.stat()):
      return lock
  except BlockingIOError:
    pass
  os.close(lock)
  return None


@contextlib.contextmanager
def _no_flock() -> Iterator[None]:
  try:
    yield
  except OSError as error:
    if error.errno not in NO_FLOCK:
      raise


def _open(path: Path) -> int:
  try:
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
  except (IsADirectoryError, PermissionError):
    return os.open(path, os.O_RDONLY)  # all that a lock needs


def this_process() -> dict[str, Any]:
  """Returns host and process id, for other processes to report."""
  return {"host": socket.gethostname(), "pid": os.getpid()}


def is_stopped(process: dict[str, Any]) -> bool:
  """Returns whether a process of this machine is suspended, as by Ctrl-Z."""
  if process.get("host") != socket.gethostname():
    return False
  try:
    stat = Path(f"/proc/{process.get('pid')}/stat").read_text()
  except (OSError, ValueError):
    return False  # another system, or it ended
  return stat.rpartition(")")[2].split()[0] in ("T", "t")
