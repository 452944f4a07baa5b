"""Sweeps that add seeds until their primary comparisons are resolved.

Each round trains the runs with the seeds that they have been given, judges the sweep as
a report does, and gives the runs of an open comparison the seeds of its next look. What
was decided follows from the folder alone, so that the same command continues.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments.reporting import comparisons, sampling
from experiments.reporting.comparisons import Findings
from experiments.reporting.load import ReportError
from experiments.reporting.overview import duration
from experiments.reporting.text import listed
from experiments.runner import dry_run, sweep_loop
from experiments.setup.command_line import Request
from experiments.setup.looks import Looks
from experiments.setup.runs import Run
from transformer_jax.training.log import make_patient
from transformer_jax.untrusted import shown


def work(
  request: Request,
  sweep: Callable[[], Mapping[str, Any]],
  todo: Sequence[Run],
  looks: Looks,
) -> int:
  """Trains runs until they are resolved, writes the report, returns the exit code.

  sweep   returns the content of sweep.json; called while the folder is locked
  todo    the runs, in order
  """
  sweep_loop.check(request, todo)
  most = _most(request, looks)
  if request.dry_run:
    counts = [str(count) for count in looks.counts if count <= most]
    print(f"until resolved: looks at {listed(counts, most=len(counts))} seeds")
    return dry_run.describe(request, todo)
  make_patient()
  sweep_loop.begin(request.workdir, sweep)
  given = {run.id: looks.counts[0] for run in todo}
  ready, states, shared = [*todo], set[str](), False
  while ready:
    now = [_with_seeds(run, looks, given[run.id]) for run in ready]
    loop, ended, stop = sweep_loop.train_all(request, now)
    if stop.received:
      return sweep_loop.stopped(request, "sweep", stop)
    states |= ended
    shared |= loop.shared
    if (findings := _judged(request)) is None:
      return 1
    wanted = {id: n for id, n in needs(findings, most).items() if n > given.get(id, n)}
    given |= wanted
    ready = [run for run in todo if run.id in wanted]
    print(_line(findings, most, ready, given), flush=True)
  written = sweep_loop.report(request.workdir, shared)
  return 0 if written and states == {"finished"} else 1


def _judged(request: Request) -> Findings | None:
  """Returns the comparisons; None, with the reason, where nothing can be judged."""
  try:
    return comparisons.find(request.workdir)
  except ReportError as error:  # as of a part of the targets that no run scores
    print(f"error: {shown(error)}; the runs are kept", file=sys.stderr)
    return None


def _most(request: Request, looks: Looks) -> int:
  """Returns the number of seeds at the last look that the command goes to."""
  limit = request.max_seeds or looks.counts[-1]
  return max(count for count in looks.counts if count <= max(limit, looks.counts[0]))


def _with_seeds(run: Run, looks: Looks, count: int) -> Run:
  """Returns the run with the first seeds of the schedule, and those of its config."""
  own = tuple(run.config.seeds)
  more = tuple(seed for seed in looks.seeds[:count] if seed not in own)
  return run.with_seeds((*own, *more))


def needs(findings: Findings, most: int) -> dict[str, int]:
  """Returns {id: number of seeds} of the runs whose comparisons have a further look.

  most   seeds that a run gets
  """
  counts: dict[str, int] = {}
  ids = {(run.group, run.label): run.id for run in findings.sweep.runs}
  for comparison in sampling.outlook(findings, most).open:
    after = sampling.next_count(findings, comparison)
    for label in (comparison.label, comparison.against):
      run = ids[comparison.group, str(label)]
      counts[run] = max(counts.get(run, 0), after or 0)
  return counts


def _line(
  findings: Findings, most: int, ready: Sequence[Run], given: Mapping[str, int]
) -> str:
  """Returns a line on a look: what is resolved, which runs get seeds, the cost.

  given   {id: number of seeds} after it
  """
  outlook = sampling.outlook(findings, most)
  text = f"until resolved: {outlook.sentence(most)}"
  if not ready:
    return text
  by_count: dict[int, list[str]] = {}
  for run in ready:
    by_count.setdefault(given[run.id], []).append(f"{run.group} {run.label}")
  each = "; ".join(f"{listed(x)} to {n} seeds" for n, x in sorted(by_count.items()))
  return f"{text}, {len(outlook.open)} get seeds: {each}{_cost(findings, given)}"


def _cost(findings: Findings, given: Mapping[str, int]) -> str:
  """Returns about how long the new seeds take, "" where that is unknown."""
  seconds = 0.0
  for run in {run.id: run for run in findings.finished}.values():
    there = len(run.fact("seeds"))
    spent = sum((run.fact("seconds") or {}).values())
    seconds += max(0, given.get(run.id, 0) - there) * spent / there
  return f"; about {duration(seconds)} of computing on one worker" if seconds else ""
