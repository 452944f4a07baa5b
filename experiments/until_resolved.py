"""Sweeps that add seeds until their primary comparisons are resolved.

Each round trains the runs with the seeds that they have been given, judges the sweep as
a report does, and gives the runs of an open comparison the seeds of its next look. What
was decided follows from the folder alone, so that the same command continues.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments.reporting import comparisons, sampling
from experiments.reporting.findings import Findings
from experiments.reporting.load import ReportError
from experiments.reporting.overview import duration
from experiments.reporting.text import listed
from experiments.runner import dry_run, sweep_loop
from experiments.runner.launchers import launcher_of
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
  rounds = Rounds(request, todo, looks)
  if request.dry_run:
    counts = [str(count) for count in looks.counts if count <= rounds.most_seeds]
    print(f"until resolved: looks at {listed(counts, most=len(counts))} seeds")
    code = dry_run.describe(request, todo)
    launcher_of(request.launcher).describe(request, len(todo))
    return code
  make_patient()
  sweep_loop.begin(request.workdir, sweep)
  while rounds.open_runs:
    if code := rounds.train_and_judge():
      return code
  written = sweep_loop.report(request.workdir, rounds.shared)
  return 0 if written and rounds.states == {"finished"} else 1


class Rounds:
  """Rounds of a sweep that adds seeds: its runs are trained, then judged.

  most_seeds    number of seeds at the last look that the command goes to
  seed_counts   {id: number of seeds}, those of the look that each run is trained for
  open_runs     runs of the next round, in order
  states        states in which runs ended
  shared        whether other processes worked on some of them

  >>> import types
  >>> from experiments.setup.looks import declared
  >>> request = types.SimpleNamespace(max_seeds=5)
  >>> looks = declared((0, 1, 2), 20)
  >>> looks.counts, Rounds(request, todo=(), looks=looks).most_seeds
  ((3, 4, 6, 8, 11, 15, 20), 4)
  """

  def __init__(self, request: Request, todo: Sequence[Run], looks: Looks):
    self.request, self.todo, self.looks = request, todo, looks
    limit = max(request.max_seeds or looks.counts[-1], looks.counts[0])
    self.most_seeds = max(count for count in looks.counts if count <= limit)
    self.seed_counts = {run.id: looks.counts[0] for run in todo}
    self.open_runs, self.states, self.shared = [*todo], set[str](), False

  def train_and_judge(self) -> int:
    """Does one round, prints it; returns the exit code where it is the last, else 0."""
    runs = [_with_seeds(x, self.looks, self.seed_counts[x.id]) for x in self.open_runs]
    loop, states, stop = sweep_loop.train_all(self.request, runs)
    if stop.received:
      return sweep_loop.stopped(self.request, "sweep", stop)
    self.states |= states
    self.shared |= loop.shared
    findings = _judged(self.request)
    if findings is None:
      return 1
    self._add_seeds(findings)
    print(self._line(findings), flush=True)
    return 0

  def _add_seeds(self, findings: Findings) -> None:
    """Opens the runs whose comparisons have a further look, with its seeds."""
    later = {
      run_id: count
      for run_id, count in needs(findings, self.most_seeds).items()
      if count > self.seed_counts.get(run_id, count)
    }
    self.seed_counts |= later
    self.open_runs = [run for run in self.todo if run.id in later]

  def _line(self, findings: Findings) -> str:
    """Returns a line on a look: what is resolved, which runs get seeds, the cost."""
    outlook = sampling.outlook(findings, self.most_seeds)
    text = f"until resolved: {outlook.sentence(self.most_seeds)}"
    if not self.open_runs:
      return text
    by_count: dict[int, list[str]] = {}
    for run in self.open_runs:
      names = by_count.setdefault(self.seed_counts[run.id], [])
      names.append(f"{run.group} {run.label}")
    each = "; ".join(f"{listed(x)} to {n} seeds" for n, x in sorted(by_count.items()))
    cost = _cost(findings, self.seed_counts)
    return f"{text}, {len(outlook.open)} get seeds: {each}{cost}"


def _judged(request: Request) -> Findings | None:
  """Returns the comparisons; None, with the reason, where nothing can be judged."""
  try:
    return comparisons.find(request.workdir)
  except (ReportError, OSError) as error:  # as of a part that no run scores, or access
    print(f"error: {shown(error)}; the runs are kept", file=sys.stderr)
    return None


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
      run_id = ids[comparison.group, str(label)]
      counts[run_id] = max(counts.get(run_id, 0), after or 0)
  return counts


def _cost(findings: Findings, seed_counts: Mapping[str, int]) -> str:
  """Returns about how long the new seeds take, "" where that is unknown.

  seed_counts   {id: number of seeds} with the new ones
  """
  seconds = 0.0
  for run in {run.id: run for run in findings.finished}.values():
    there = len(run.fact("seeds"))
    spent = sum((run.fact("seconds") or {}).values())
    seconds += max(0, seed_counts.get(run.id, 0) - there) * spent / there
  return f"; about {duration(seconds)} of computing on one worker" if seconds else ""
