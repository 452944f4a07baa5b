"""Time left of a sweep, from its finished runs and the pace of its running ones.

It is that of a schedule: the rest of each running run goes by the pace of its own
steps, each other run takes as long as the finished ones of its group, and as many run
at a time as do now.
"""

import heapq
import statistics
import time
from collections.abc import Iterable, Sequence

from experiments.runner.run_progress import (
  RUNNING,
  STOPPED,
  WAITING,
  RunProgress,
  Took,
)


def time_left(runs: Sequence[RunProgress], idle: int = 0) -> tuple[float | None, str]:
  """Returns the seconds until all that can run has run, and how they are known.

  None: unknown.

  idle   processes that are about to begin a run

  >>> half = RunProgress("a1", "rope", "text", RUNNING, step=40, steps=80, per_step=0.5)
  >>> time_left([half, RunProgress("b2", "none", "text", WAITING)])
  (60.0, 'by 1 running, without evaluation')
  """
  known = Known(runs)
  running = [run for run in runs if run.state == RUNNING]
  waiting = [run for run in runs if run.state in (STOPPED, WAITING)]
  if not running and not (idle and waiting):
    return (None, "no run is running") if waiting else (0.0, "all runs have ended")
  rests = [seconds for run in running if (seconds := known.rest(run)) is not None]
  ahead = [seconds for run in waiting if (seconds := known.ahead(run)) is not None]
  if len(rests) + len(ahead) < len(running) + len(waiting):
    return None, "no run has taken steps yet"
  finished = known.finished
  sources = [f"{finished} finished"] * bool(finished)
  sources += [f"{len(running)} running"] * bool(running)
  without = "" if finished else ", without evaluation"
  seconds = _schedule([*rests, *[0.0] * idle], ahead)
  return round(seconds, 1), f"by {' and '.join(sources)}{without}"


class Known:
  """Times of a sweep's runs, by the finished and running ones; all are read once.

  finished   number of finished runs with a time
  runs       of the sweep

  >>> half = RunProgress("a1", "rope", "text", RUNNING, step=40, steps=80, per_step=0.5)
  >>> known = Known([half, RunProgress("b2", "none", "text", WAITING)])
  >>> known.rest(half), known.finished
  (20.0, 0)
  """

  def __init__(self, runs: Iterable[RunProgress]):
    took: dict[str, list[Took]] = {}
    paces = []
    for run in runs:
      if run.took:
        took.setdefault(run.group, []).append(run.took)
      if run.per_step and run.steps:
        paces.append(run.per_step * run.steps)
    every = [each for group in took.values() for each in group]
    self.finished = len(every)
    self._by_group = {group: _medians(times) for group, times in took.items()}
    self._of_all = _medians(every) if every else None
    self._by_steps = statistics.median(paces) if paces else None

  def rest(self, run: RunProgress) -> float | None:
    """Returns the seconds left of a running run, None where nothing tells them."""
    usual = self._usual(run)
    if run.ahead:
      return round(run.ahead + (usual.evaluation if usual else 0.0), 1)
    whole = self._whole(run)
    if whole is None:
      return None
    spent = time.time() - run.began if run.began else 0.0
    return round(max(0.0, whole - spent), 1)

  def ahead(self, run: RunProgress) -> float | None:
    """Returns the seconds of a run that waits, or of the rest of a stopped one."""
    whole = self._whole(run)
    if whole is None or not run.steps:
      return whole
    return whole * (1 - min(1.0, run.step / run.steps))

  def _whole(self, run: RunProgress) -> float | None:
    """Returns the seconds of a whole run, as finished ones of its group took.

    Before the first has finished: those of the steps of running ones.
    """
    usual = self._usual(run)
    return usual.whole if usual else self._by_steps

  def _usual(self, run: RunProgress) -> Took | None:
    """Returns medians of the finished runs of a group; without any, those of all."""
    return self._by_group.get(run.group, self._of_all)


def _medians(times: Sequence[Took]) -> Took:
  return Took(*(statistics.median(column) for column in zip(*times, strict=True)))


def _schedule(rests: Sequence[float], each: Iterable[float]) -> float:
  """Returns when the last run ends: each begins as soon as another has ended."""
  ends = list(rests)
  heapq.heapify(ends)
  for seconds in each:
    heapq.heappush(ends, heapq.heappop(ends) + seconds)
  return max(ends)
