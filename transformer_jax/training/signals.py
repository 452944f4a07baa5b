"""Ctrl-C and SIGTERM as a flag that the training loop reads once per dispatch.

Fatal signals, which end the process at once, leave the stack in a file.
"""

import contextlib
import dataclasses
import faulthandler
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from transformer_jax.training.json_files import make_way
from transformer_jax.training.log import is_patient

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclasses.dataclass
class Stop:
  """Flag that is true after a signal to stop the process.

  >>> stop = Stop()
  >>> bool(stop), stop.exit_code
  (False, 0)
  >>> stop.received = signal.SIGTERM
  >>> bool(stop), stop.exit_code
  (True, 143)
  """

  received: signal.Signals | None = None

  def __bool__(self) -> bool:
    return self.received is not None

  @property
  def exit_code(self) -> int:
    """128 + signal, as shells report it: 130 for Ctrl-C, 143 for SIGTERM."""
    return 128 + self.received if self.received else 0


@contextlib.contextmanager
def stop_requested() -> Iterator[Stop]:
  """Yields a flag that SIGINT and SIGTERM set; a second signal kills at once.

  Pass the flag down instead of nesting: only the innermost one is set. Outside the
  main thread Python allows no handlers, so there the flag stays false.
  """
  stop = Stop()
  if threading.current_thread() is not threading.main_thread():
    yield stop
    return
  before = {number: signal.getsignal(number) for number in SIGNALS}
  # nohup and `command &` ignore signals on purpose; so do we then.
  mine = [number for number in SIGNALS if before[number] is not signal.SIG_IGN]

  def handle(number: int, frame: object) -> None:
    stop.received = signal.Signals(number)
    for each in mine:
      # The kernel's default action needs no Python, so it works while XLA compiles.
      signal.signal(each, signal.SIG_DFL)
    name = stop.received.name
    line = f"\n{name}: saving after this dispatch; send it again to abort at once\n"
    with contextlib.suppress(OSError):  # a full disk under the log
      os.write(2, line.encode())  # print() is not safe inside a signal handler

  try:
    for number in mine:
      signal.signal(number, handle)
    yield stop
  finally:
    for number in mine:
      signal.signal(number, before[number] or signal.SIG_DFL)


@contextlib.contextmanager
def fatal_errors_in(path: Path) -> Iterator[None]:
  """Lets SIGSEGV, SIGABRT and their like write "Fatal Python error" and the stack.

  The file is empty meanwhile and removed afterwards. Does nothing where Python's
  faulthandler was enabled by somebody else than the command itself, as by pytest.
  """
  make_way(path)
  with open(path, "wb") as file:
    mine = not faulthandler.is_enabled() or is_patient(sys.stderr)
    if mine:
      faulthandler.enable(file)
    try:
      yield
    finally:
      if mine:
        faulthandler.disable()
      path.unlink(missing_ok=True)
