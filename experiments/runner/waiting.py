"""Runs that other processes work on: waited for, with a line of progress."""

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from experiments.runner.locks import is_stopped
from experiments.runner.run_folder import BUSY, Outcome
from experiments.runner.state import count, quiet, status
from transformer_jax.training.signals import Stop

LOOK, SAY, PATIENCE = 0.5, 60.0, 60.0  # seconds between looks, lines; for stopped ones


def outcomes(
  folders: Mapping[str, Path], attempt: Callable[[str], Outcome], stop: Stop
) -> Iterator[Outcome]:
  """Yields how each run ended, once the process that works on it lets go.

  folders   of the runs, by their names
  attempt   brings a run to an end by its name, or returns a busy outcome
  """
  left, said, moved = dict(folders), float("-inf"), time.monotonic()
  while left and not stop:
    now = time.monotonic()
    if now - said >= SAY:
      print(line(left), flush=True)
      said = now
    for name in [*left]:
      outcome = attempt(name)
      if outcome.state != BUSY:
        del left[name]
        said, moved = float("-inf"), time.monotonic()
        yield outcome
    if left and now - moved >= PATIENCE and all(map(_stopped, left.values())):
      print(f"{line(left)}: left to it", flush=True)
      yield from (Outcome(BUSY) for _ in left)
      return
    time.sleep(LOOK if left else 0)


def line(left: Mapping[str, Path]) -> str:
  """Returns how far the runs are that others work on, and who they are."""
  parts = [f"{name.partition('] ')[2]} {_where(path)}" for name, path in left.items()]
  more = f" and {len(parts) - 3} more" if len(parts) > 3 else ""
  return f"waiting for runs of other processes: {', '.join(parts[:3])}{more}"


def _where(path: Path) -> str:
  now = status(path, quiet)
  process = now.get("process")
  pid = process.get("pid") if isinstance(process, dict) else None
  held = f", process {pid} on {process['host']}" if pid and "host" in process else ""
  state = (
    f", which is stopped: kill -CONT {pid} lets it go on" if _stopped(path) else ""
  )
  return f"(step {count(now, 'step')}{held}{state})"


def _stopped(path: Path) -> bool:
  process = status(path, quiet).get("process")
  return isinstance(process, dict) and is_stopped(process)
