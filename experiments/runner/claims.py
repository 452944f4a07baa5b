"""Claims of folders that hold over a shared file system, also where `flock` does not.

A claim is a file `.claim.N` with its owner. The highest N counts. A file of a new
number is made exclusively (O_EXCL), which one process of all machines can do, and it is
the only way to get a claim: so a folder is claimed once. The owner changes its file
four times in a lease. Others take the next number after the owner released it, died on
this machine, or changed nothing for a lease of *their* clock: no two clocks are
compared. An owner that was suspended for longer than half a lease takes a new number
before it writes, and finds that it has lost the claim where it cannot.
"""

import contextlib
import dataclasses
import errno
import json
import os
import threading
import time
from pathlib import Path

from experiments.runner.owner import Owner

NAME = ".claim."
SIZE = 512  # bytes of a claim: rewriting one needs no space
# Where nothing can be written, nothing is lost by two processes either.
READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)


class LostError(Exception):
  """Raised where another process took the claim over; this one must write no more.

  >>> str(LostError("runs/a is another process's now"))
  "runs/a is another process's now"
  """


def clock() -> float:
  """Returns seconds that also pass while the machine is suspended, if it can tell."""
  boottime = getattr(time, "CLOCK_BOOTTIME", None)
  return time.monotonic() if boottime is None else time.clock_gettime(boottime)


class Claim:
  """A claim that this process holds on a folder; a thread renews it.

  folder   the folder
  number   of its file, larger than those of all claims before
  lease    seconds, see `Owner`

  >>> import tempfile
  >>> with tempfile.TemporaryDirectory() as folder:
  ...   mine = take(Path(folder), lease=60.0)
  ...   print(mine.number, take(Path(folder), lease=60.0))
  ...   release(mine)
  ...   again = take(Path(folder), lease=60.0)
  ...   print(again.number)
  ...   release(again)
  1 None
  2
  """

  def __init__(self, folder: Path, number: int, lease: float):
    self.folder, self.number, self.lease = folder, number, lease
    self.lost = False
    self._owner = Owner.this_process(lease)
    self._renewals, self._ended = 0, threading.Event()
    self._busy = threading.RLock()
    self._create()

  @property
  def path(self) -> Path:
    return self.folder / f"{NAME}{self.number}"

  @property
  def token(self) -> str:
    return self._owner.token

  def start(self) -> None:
    """Renews the claim from now on."""
    threading.Thread(target=self._keep, daemon=True).start()

  def check(self) -> None:
    """Raises LostError where the claim is, or may be, another process's now.

    Without access to the disk where the last renewal is younger than half a lease: no
    other process can have taken it then. It may be where the disk refused every renewal
    for a whole lease.
    """
    with self._busy:
      if not self.lost and clock() - self._renewed > self.lease / 2:
        self.renew()
      over = clock() - self._renewed > self.lease
      if self.lost or over:
        taken = (
          "another process took" if self.lost else "another process may have taken"
        )
        raise LostError(
          f"{self.folder}: its claim was not renewed for {self.lease:g} s, and {taken}"
          " the run over; this one stops"
        )

  def renew(self) -> None:
    """Changes the file, or takes the next number where that may be too late."""
    with self._busy, contextlib.suppress(OSError):  # tried again, or taken over
      if clock() - self._renewed <= self.lease / 2:
        with contextlib.suppress(FileNotFoundError):
          return self._write()
      self._take_next()

  def _take_next(self) -> None:
    if max(_numbers(self.folder), default=0) > self.number:
      self.lost = True
      return
    self.number += 1
    try:
      self._create()
    except FileExistsError:
      self.lost = True
    except OSError:
      self.number -= 1
      raise

  def release(self) -> None:
    """Gives the claim back."""
    self._ended.set()
    with self._busy, contextlib.suppress(OSError, LostError):
      self.check()
      self._owner = dataclasses.replace(self._owner, released=True)
      self._write()

  def _keep(self) -> None:
    while not (self._ended.wait(self.lease / 4) or self.lost):
      self.renew()

  def _create(self) -> None:
    """Makes the file of the number; raises FileExistsError where it is another's."""
    os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
      self._write()
      # One who read the folder long ago makes a number that was used and removed.
      if max(_numbers(self.folder), default=0) > self.number:
        raise FileExistsError(errno.EEXIST, "claimed", str(self.path))
    except FileNotFoundError as error:  # the owner of a higher number removed it
      raise FileExistsError(errno.EEXIST, "claimed", str(self.path)) from error
    except OSError:
      self.path.unlink(missing_ok=True)
      raise
    for number in _numbers(self.folder):
      if number < self.number:
        (self.folder / f"{NAME}{number}").unlink(missing_ok=True)

  def _write(self) -> None:
    now, self._renewals = clock(), self._renewals + 1
    text = json.dumps({**dataclasses.asdict(self._owner), "renewed": self._renewals})
    # Opened and closed each time: that is what makes it visible to other hosts (NFS).
    with open(self.path, "r+b") as file:
      file.write(text.ljust(SIZE - 1).encode() + b"\n")
    self._renewed = now


_held: dict[Path, Claim] = {}
_taking = threading.Lock()  # a claim of this process that is not in _held is void
# What this process last read of others' claims, and when it read that first.
_watched: dict[Path, tuple[bytes, float]] = {}


def take(folder: Path, lease: float) -> Claim | None:
  """Returns the claim of a folder, None where another process has it.

  Raises OSError where the file system refuses; PermissionError for a read-only one.
  """
  with _taking:
    last = max(_numbers(folder), default=0)
    if last and not _void(folder / f"{NAME}{last}"):
      return None
    try:
      claim = Claim(folder, last + 1, lease)
    except FileExistsError:
      return None
    except OSError as error:
      if error.errno in READ_ONLY:
        raise PermissionError(*error.args) from error
      raise
    _held[folder.absolute()] = claim
  claim.start()
  return claim


def release(claim: Claim) -> None:
  """Gives a claim back."""
  claim.release()
  _held.pop(claim.folder.absolute(), None)


def check(folder: Path) -> None:
  """Raises LostError where this process lost its claim of a folder.

  Does nothing for a folder that it has not claimed.
  """
  if claim := _held.get(folder.absolute()):
    claim.check()


def holder(folder: Path) -> Owner | None:
  """Returns the owner of a folder's claim, None where there is no claim."""
  with contextlib.suppress(OSError):
    if last := max(_numbers(folder), default=0):
      owner = Owner.read((folder / f"{NAME}{last}").read_bytes())
      return None if owner.released else owner
  return None


def _numbers(folder: Path) -> list[int]:
  names = (name.removeprefix(NAME) for name in os.listdir(folder) if NAME in name)
  return [int(name) for name in names if name.isdigit()]


def _void(path: Path) -> bool:
  """Returns whether a claim no longer counts, as far as this process has watched it."""
  try:
    content = path.read_bytes()
  except FileNotFoundError:  # of one who gets nothing, see `_create`
    return False
  owner = Owner.read(content)
  if owner.token in {claim.token for claim in _held.values()}:
    return False
  if owner.released or owner.ended or owner.is_this_process:
    return True
  before, since = _watched.get(path, (None, 0.0))
  if content != before:
    _watched[path] = (content, clock())
    return False
  return clock() - since > owner.lease
