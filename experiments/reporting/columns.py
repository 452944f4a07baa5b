"""Columns to judge: a cell's scores, and the runs that must not be compared."""

import functools
from collections.abc import Hashable, Iterator, Mapping, Sequence

from experiments.reporting import comparable, crossed, limits, load
from experiments.reporting.cells import Cell
from experiments.reporting.family import Pair
from experiments.reporting.judgements import Column, Excuse
from experiments.setup import primary
from experiments.setup.looks import Looks


def column(
  sweep: load.Sweep,
  cell: Cell,
  better: str,
  judged: bool,
  looks: Looks | None = None,
) -> Column:
  """Returns the scores of a cell with its pairs and excuses.

  better   "lower" or "higher"
  judged   whether the cell has verdicts
  looks    of a sweep that adds seeds until it is resolved
  """
  runs, baseline = sweep.of(cell.group), sweep.baseline
  labels = [run.label for run in runs]
  scores = {r.label: r.values(cell.length, cell.measure, cell.part) for r in runs}
  scored = [run for run in runs if scores[run.label]]
  declared = sweep.comparisons
  pairs: list[Pair] = [(label, baseline) for label in labels]
  judged_pairs = declared.pairs(labels, baseline) if judged else []
  if declared.contrasts == primary.BASELINE and baseline not in labels:
    judged_pairs = []
  pairs += [pair for pair in judged_pairs if pair not in pairs]
  excuses = {run.label: _excuse(run, cell.length, scores[run.label]) for run in runs}
  test_sets = functools.partial(
    crossed.of_pairs,
    runs,
    length=cell.length,
    measure=cell.measure,
    part=cell.part,
  )
  return Column(
    scores=scores,
    better=better,
    pairs=pairs,
    primary=judged_pairs,
    excused={label: excuse for label, excuse in excuses.items() if excuse},
    unlike=dict(_unlike(pairs, runs, targets_of(scored, cell))),
    baseline=baseline,
    best=isinstance(declared.contrasts, str),
    resolution=limits.resolution(scored, cell.length, cell.measure),
    test_sets=test_sets,
    bounds=limits.bounds(scored, cell.measure),
    margin=declared.margin_of(cell.measure),
    looks=looks.each if looks and judged_pairs else (),
  )


def targets_of(runs: Sequence[load.LoadedRun], cell: Cell) -> dict[str, Hashable]:
  """Returns {label: identity of its scored targets} of the runs with a score."""
  return comparable.targets(runs, cell.length, cell.measure)


def _unlike(
  pairs: Sequence[Pair],
  runs: Sequence[load.LoadedRun],
  targets: Mapping[str, Hashable],
) -> Iterator[tuple[Pair, str]]:
  """Yields (pair, reason) of the pairs that must not be compared.

  targets   {label: identity of the scored targets}
  """
  changed = comparable.changed([run for run in runs if run.result])
  for label, against in pairs:
    if changed:
      yield (label, against), changed
    elif against and against in targets and targets.get(label) != targets[against]:
      yield (label, against), f"scored on other targets than {against}"


def _excuse(
  run: load.LoadedRun, length: int, values: Mapping[int, float]
) -> Excuse | None:
  """Returns (verdict, reason) for a score that lacks seeds, or None."""
  if not run.result:
    failed = run.state in ("failed", "damaged")
    return "failed" if failed else "unfinished", run.error or run.state
  undefined = run.fact("undefined") or {}
  if str(length) in undefined:
    return "undefined", str(undefined[str(length)])
  if run.divergences:
    return "diverged", ", ".join(run.divergences)
  if length not in run.result["lengths"]:
    return "undefined", f"not scored at length {length}"
  missing = [seed for seed in run.result["seeds"] if seed not in values]
  if missing:
    return "undefined", f"no finite value in seeds {', '.join(map(str, missing))}"
  return None
