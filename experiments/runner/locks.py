"""Locks of folders: one process at a time; the kernel drops them when it dies."""

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformer_jax.training.json_files import warn

POLL, REPORT = 0.1, 10.0  # seconds between attempts, and between messages


@contextlib.contextmanager
def claim(folder: Path, wait: bool = False) -> Iterator[bool]:
  """Holds a folder's lock; yields whether this process got it.

  wait   for another process to release it, instead of yielding False
  """
  folder.mkdir(parents=True, exist_ok=True)
  lock = _locked(folder / "lock", wait)
  try:
    yield lock is not None
  finally:
    if lock is not None:
      os.close(lock)


def _locked(path: Path, wait: bool) -> int | None:
  began = time.monotonic()
  while (lock := _try(path)) is None and wait:
    time.sleep(POLL)
    if time.monotonic() - began >= REPORT:
      warn(f"waiting for another process that holds {path}")
      began = time.monotonic()
  return lock


def _try(path: Path) -> int | None:
  """Returns a descriptor of the locked file, None where another process has it."""
  lock = _open(path)
  try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    # If the file was removed meanwhile, others lock the new one.
    if path.exists() and os.path.samestat(os.fstat(lock), path.stat()):
      return lock
  except BlockingIOError:
    pass
  os.close(lock)
  return None


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
