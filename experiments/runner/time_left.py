"""Time left of a sweep, from its finished runs and the pace of its running ones.

It is that of a schedule: the rest of each running run goes by the pace of its own
steps, each other run takes as long as the finished ones of its group, and as many run
at a time as do now.
"""

import heapq
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence

from experiments.runner.run_progress import (
  RUNNING,
  STOPPED,
  WAITING,
  RunProgress,
  Took,
)

Times = Mapping[str, Sequence[Took]]  # of finished runs, by group


def time_left(runs: Sequence[RunProgress], idle: int = 0) -> tuple[float | None, str]:
  """Returns the seconds until all that can run has run, and how they are known.

  None: unknown.

  idle   processes that are about to begin a run

  >>> half = RunProgress("a1", "rope", "text", RUNNING, step=40, steps=80, per_step=0.5)
  >>> time_left([half, RunProgress("b2", "none", "text", WAITING)])
  (60.0, 'by 1 running, without evaluation')
  """
  took = finished_times(runs)
  running = [run for run in runs if run.state == RUNNING]
  waiting = [run for run in runs if run.state in (STOPPED, WAITING)]
  if not running and not (idle and waiting):
    return (None, "no run is running") if waiting else (0.0, "all runs have ended")
  rests = [seconds for run in running if (seconds := rest(run, runs)) is not None]
  ahead = [seconds for run in waiting if (seconds := _ahead(run, runs)) is not None]
  if len(rests) + len(ahead) < len(running) + len(waiting):
    return None, "no run has taken steps yet"
  finished = sum(map(len, took.values()))
  sources = [f"{finished} finished"] * bool(finished)
  sources += [f"{len(running)} running"] * bool(running)
  without = "" if finished else ", without evaluation"
  seconds = _schedule([*rests, *[0.0] * idle], ahead)
  return round(seconds, 1), f"by {' and '.join(sources)}{without}"


def finished_times(runs: Iterable[RunProgress]) -> Times:
  """Returns {group: the times of its finished runs}."""
  took: dict[str, list[Took]] = {}
  for run in runs:
    if run.took:
      took.setdefault(run.group, []).append(run.took)
  return took


def rest(run: RunProgress, runs: Sequence[RunProgress]) -> float | None:
  """Returns the seconds left of a running run, None where nothing tells them.

  runs   of the sweep
  """
  if run.ahead:
    evaluation = _median(finished_times(runs), run.group, "evaluation")
    return round(run.ahead + (evaluation or 0.0), 1)
  whole = _whole(run, runs)
  if whole is None:
    return None
  spent = time.time() - run.began if run.began else 0.0
  return round(max(0.0, whole - spent), 1)


def _ahead(run: RunProgress, runs: Sequence[RunProgress]) -> float | None:
  """Returns the seconds of a run that waits, or of the rest of a stopped one."""
  whole = _whole(run, runs)
  if whole is None or not run.steps:
    return whole
  return whole * (1 - min(1.0, run.step / run.steps))


def _whole(run: RunProgress, runs: Sequence[RunProgress]) -> float | None:
  """Returns the seconds of a whole run, as finished ones of its group took.

  Before the first has finished: those of the steps of running ones.
  """
  whole = _median(finished_times(runs), run.group, "whole")
  if whole is not None:
    return whole
  paces = [x.per_step * x.steps for x in runs if x.per_step and x.steps]
  return statistics.median(paces) if paces else None


def _median(took: Times, group: str, name: str) -> float | None:
  """Returns the median of finished runs of a group; without any, that of all."""
  same = took.get(group) or [each for group in took.values() for each in group]
  return statistics.median(getattr(x, name) for x in same) if same else None


def _schedule(rests: Sequence[float], each: Iterable[float]) -> float:
  """Returns when the last run ends: each begins as soon as another has ended."""
  ends = list(rests)
  heapq.heapify(ends)
  for seconds in each:
    heapq.heappush(ends, heapq.heappop(ends) + seconds)
  return max(ends)
