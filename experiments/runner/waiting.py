"""Waiting for runs of other processes, with a line of progress."""

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from experiments.runner.locks import is_stopped
from experiments.runner.run_folder import BUSY, Outcome
from experiments.runner.state import count, quiet, status
from transformer_jax import hosts
from transformer_jax.training.signals import Stop

# Seconds between attempts, between lines, and until suspended processes are left.
POLL, REPORT, PATIENCE = 0.5, 60.0, 60.0


def outcomes(
  folders: Mapping[str, Path], attempt: Callable[[str], Outcome], stop: Stop
) -> Iterator[Outcome]:
  """Yields the outcome of each run, once its process has released it.

  folders   {name: folder} of the runs
  attempt   function of a name that runs it, or returns a busy outcome
  stop      becomes true when the command should end
  """
  left, reported, moved = dict(folders), float("-inf"), time.monotonic()
  while left and not stop:
    now = time.monotonic()
    if now - reported >= REPORT:
      print(line(left), flush=True)
      reported = now
    for name in [*left]:
      outcome = attempt(name)
      if outcome.state != BUSY:
        del left[name]
        reported, moved = float("-inf"), time.monotonic()
        yield outcome
    if left and _hopeless(left, moved):
      print(f"{line(left)}: left to it", flush=True)
      yield from (Outcome(BUSY) for _ in left)
      return
    time.sleep(POLL if left else 0)


def _hopeless(left: Mapping[str, Path], moved: float) -> bool:
  """Returns whether all that is waited for is suspended, for long."""

  def suspended() -> bool:
    late = time.monotonic() - moved >= PATIENCE
    return late and all(map(_stopped, left.values()))

  return hosts.from_leader("whether to wait", suspended)


def line(left: Mapping[str, Path]) -> str:
  """Returns a line on runs of other processes: their steps and processes."""
  parts = [f"{name.partition('] ')[2]} {_where(path)}" for name, path in left.items()]
  more = f" and {len(parts) - 3} more" if len(parts) > 3 else ""
  return f"waiting for runs of other processes: {', '.join(parts[:3])}{more}"


def _where(path: Path) -> str:
  now = status(path, quiet)
  process = now.get("process")
  process = process if isinstance(process, dict) else {}
  pid, host = process.get("pid"), process.get("host")
  holder = f", process {pid} on {host}" if pid and host else ""
  state = (
    f", which is stopped: kill -CONT {pid} lets it go on" if _stopped(path) else ""
  )
  return f"(step {count(now, 'step')}{holder}{state})"


def _stopped(path: Path) -> bool:
  process = status(path, quiet).get("process")
  return isinstance(process, dict) and is_stopped(process)
