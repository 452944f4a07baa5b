"""Stopwatch of one attempt at a run, and checkpoints that it times."""

import contextlib
import time
from pathlib import Path
from typing import Any

from experiments.runner import goodput
from experiments.runner.locks import LostError, check, this_process
from experiments.runner.timing import Stopwatch
from transformer_jax.training.checkpoint import Keeper
from transformer_jax.training.json_files import write_json

EVERY = 1.0  # seconds between writings: a kill leaves the time since unknown
WHILE_TRAINING = ("restore", "checkpoint", "data")  # phases inside of `train`


class AttemptWatch(Stopwatch):
  """Stopwatch of one attempt at a run, recorded beside those of earlier attempts.

  folder   of the run
  writes   False for a process that leaves the record to another one

  >>> import tempfile
  >>> with tempfile.TemporaryDirectory() as folder:
  ...   watch = AttemptWatch(Path(folder))
  ...   with watch.phase("train"):
  ...     watch.resumed("", step=0)
  ...     watch.reached(step=20)
  ...   watch.write()
  ...   [entry["trained"][0]["to"] for entry in goodput.recorded(Path(folder))]
  [20]
  """

  def __init__(self, folder: Path, writes: bool = True):
    super().__init__()
    self._path, self._writes = folder / goodput.FILE, writes
    self._earlier = goodput.recorded(folder)
    self._began = {"began": time.time(), **this_process()}
    self._trained: list[dict[str, Any]] = []
    self._start = self._written = time.monotonic()
    self._before = 0.0  # seconds of training before the present block

  def resumed(self, block: str, step: int) -> None:
    """Begins a block of seeds, at the step of its checkpoint; 0: a new one."""
    self.lap()
    self._before = self.seconds.get("train", 0.0)
    self._trained.append({"block": block, "from": step, "to": step, "seconds": 0.0})
    self.write()

  def reached(self, step: int) -> None:
    """Counts the time of the block's steps up to this one."""
    self.lap()
    seconds = self.seconds["train"] - self._before
    self._trained[-1] |= {"to": step, "seconds": seconds}
    if time.monotonic() - self._written >= EVERY:
      self.write()

  def write(self) -> None:
    """Writes the record; a full disk must not end the training.

    Nothing where another process took the run over: the record is that one's now.
    """
    self._written = time.monotonic()
    if self._writes:
      with contextlib.suppress(OSError, LostError):
        check(self._path.parent)
        write_json(self._path, {"attempts": self.attempts()})

  def attempts(self) -> list[dict[str, Any]]:
    """Returns the entries of all attempts, the present one last."""
    seconds = {name: value for name, value in self.seconds.items() if name != "train"}
    now = {"wall": time.monotonic() - self._start, "seconds": seconds}
    return [*self._earlier, {**self._began, **now, "trained": self._trained}]


class TimedKeeper(Keeper):
  """Checkpoints whose reading, writing and waiting are phases of a stopwatch.

  >>> import tempfile
  >>> watch = Stopwatch()
  >>> with tempfile.TemporaryDirectory() as folder:
  ...   with TimedKeeper(Path(folder), keep=2, watch=watch) as keeper:
  ...     found = keeper.restore({})
  >>> found, sorted(watch.seconds)
  (None, ['checkpoint', 'compile', 'restore'])
  """

  def __init__(self, directory: Path, keep: int, watch: Stopwatch):
    super().__init__(directory, keep)
    self._watch = watch

  def restore(self, *arguments: Any, **named: Any) -> Any:
    with self._watch.phase("restore"):
      return super().restore(*arguments, **named)

  def save(self, *arguments: Any, **named: Any) -> None:
    with self._watch.phase("checkpoint"):
      super().save(*arguments, **named)

  def close(self) -> None:
    with self._watch.phase("checkpoint"):
      super().close()
