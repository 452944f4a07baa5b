"""Cells of a report: the scores of a group by measure, part and length.

The plan's primary cells have verdicts; all others are exploratory.
"""

from typing import NamedTuple

from experiments.reporting.load import ReportError
from experiments.reporting.loaded_run import LoadedRun, Sweep
from experiments.setup import primary


class Cell(NamedTuple):
  """One score of a group's runs.

  part     "mean", or the part of the targets that is scored
  length   context length, in tokens or symbols

  >>> Cell("copy", "accuracy", "mean", 64).length
  64
  """

  group: str
  measure: str
  part: str
  length: int


def cells(sweep: Sweep, group: str) -> dict[Cell, str]:
  """Returns {cell: "lower" or "higher"} of a group, the headline measure first."""
  finished = _finished(sweep, group)
  lengths = sorted({length for run in finished for length in run.fact("lengths")})
  return {
    Cell(group, measure, part, length): better
    for measure, better in measures(sweep, group).items()
    for part in _parts(finished, measure)
    for length in lengths
  }


def measures(sweep: Sweep, group: str) -> dict[str, str]:
  """Returns {measure: "lower" or "higher"} of a group, the headline first."""
  finished = _finished(sweep, group)
  return {m["name"]: m["better"] for run in finished for m in run.fact("measures")}


def train_length(sweep: Sweep, group: str) -> int | None:
  """Returns the training length of a group's first finished run, or None."""
  return next((run.fact("train_length") for run in _finished(sweep, group)), None)


def primary_cells(sweep: Sweep, group: str) -> list[Cell]:
  """Returns the cells of a group that have verdicts, the shortest length first.

  None of runs that were scored again: the plan did not declare them.
  """
  if any(run.again_of for run in sweep.of(group)):
    return []
  declared, known = sweep.comparisons, cells(sweep, group)
  train, lengths = train_length(sweep, group), sorted({cell.length for cell in known})
  if train is None or not lengths:
    return []
  trained = min(lengths, key=lambda length: abs(length - train))
  ends = {primary.TRAINED: trained, primary.LONGEST: lengths[-1]}
  wanted = {ends[x] if isinstance(x, str) else x * train for x in declared.lengths}
  named = declared.measures or tuple(measures(sweep, group))[:1]
  return [
    cell
    for measure in named
    for cell in known
    if (cell.measure, cell.part) == (measure, declared.part) and cell.length in wanted
  ]


def pending(sweep: Sweep) -> int:
  """Returns the number of primary comparisons whose runs have no result yet.

  In a sweep that adds seeds until it is resolved they count from the first: no verdict
  is taken back as they come. A group without results has as many cells as is possible.
  """
  declared, count = sweep.comparisons, 0
  for group in sweep.groups:
    runs = {run.label: run for run in sweep.of(group)}
    if any(run.again_of for run in runs.values()):
      continue
    most = len(declared.lengths) * max(1, len(declared.measures))
    scores = len(primary_cells(sweep, group)) or most
    pairs = declared.pairs(runs, sweep.baseline)
    there = [[runs[x] for x in pair] for pair in pairs if {*pair} <= runs.keys()]
    count += scores * sum(not all(run.result for run in pair) for pair in there)
  return count


def check(sweep: Sweep) -> None:
  """Raises ReportError where all runs finished and none has a declared score."""
  if not sweep.runs or not all(run.result for run in sweep.runs):
    return
  if not any(primary_cells(sweep, group) for group in sweep.groups):
    known = dict.fromkeys(c for group in sweep.groups for c in cells(sweep, group))
    has = {
      "measures": dict.fromkeys(cell.measure for cell in known),
      "parts": dict.fromkeys(cell.part for cell in known),
      "lengths": dict.fromkeys(str(cell.length) for cell in known),
    }
    each = "; ".join(f"{name} {', '.join(values)}" for name, values in has.items())
    raise ReportError(
      f"{sweep.workdir / 'sweep.json'}: no run has a score of its comparisons"
      f" {sweep.comparisons.to_json()}; there are {each}"
    )


def _finished(sweep: Sweep, group: str) -> list[LoadedRun]:
  return [run for run in sweep.of(group) if run.result]


def _parts(runs: list[LoadedRun], measure: str) -> list[str]:
  """Returns the scored parts, the mean first."""
  parts = dict.fromkeys(
    score.get("part", "mean")
    for run in runs
    for score in run.fact("scores")
    if score["measure"] == measure
  )
  return sorted(parts, key=lambda part: part != "mean")
