"""Comparisons of a sweep, and all of them together: the numbers of its report."""

import dataclasses
from collections.abc import Hashable, Iterator, Mapping, Sequence

from experiments.reporting import cells, comparable
from experiments.reporting.cells import Cell
from experiments.reporting.judgements import Judgement
from experiments.reporting.loaded_run import LoadedRun, Sweep
from experiments.reporting.statistics import Bounds
from experiments.reporting.text import multiple
from experiments.setup.looks import Looks

OLDER = "context length"  # of results that do not say it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison(Judgement):
  """One line of results.csv: the judgement of two runs by one score.

  length       context length, in tokens or symbols
  times        length over the training length
  better       "lower" or "higher"
  part         "mean", or the part of the targets that is scored
  planned      seeds of the plan; the estimate counts those with a value
  against      label of the run that it is compared with: the baseline, if there is one
  target       identifies the scored targets: equal values are equal targets
  resolution   standard error of a score from its examples; 0: unknown
  bounds       least and largest value of the measure
  chance       score of guessing; None: unknown
  """

  group: str
  label: str
  length: int
  times: float
  measure: str
  better: str
  part: str
  planned: int
  against: str | None
  target: Hashable  # None: nothing was scored
  resolution: float
  bounds: Bounds
  chance: float | None

  @property
  def cell(self) -> Cell:
    """Returns the cell of the score."""
    return Cell(self.group, self.measure, self.part, self.length)

  @property
  def complete(self) -> bool:
    """Returns whether the mean is over all planned seeds."""
    return self.estimate.mean is not None and self.estimate.count == self.planned


@dataclasses.dataclass(frozen=True)
class Findings:
  """A sweep with all its comparisons, the numbers of its report.

  comparisons   each variant against the baseline, by every score
  pairs         primary comparisons with other runs than the baseline
  leaders       {cell: the variant with the best mean, then those not resolved from
                it}; alone, it is best; of primary cells for which this may be claimed
  looks         of a sweep that adds seeds until it is resolved; None: seeds are fixed
  """

  sweep: Sweep
  comparisons: tuple[Comparison, ...]
  pairs: tuple[Comparison, ...] = ()
  leaders: Mapping[Cell, tuple[str, ...]] = dataclasses.field(default_factory=dict)
  looks: Looks | None = None

  def primary(self, group: str) -> list[Cell]:
    """Returns the cells of a group that have verdicts, the shortest length first."""
    return cells.primary_cells(self.sweep, group)

  def main(self, group: str) -> list[Cell]:
    """Returns the cells of a group's answer and main table, one for each length.

    Those with verdicts, by the first of their measures; without any the headline
    measure at the trained and the longest length.
    """
    if primary := self.primary(group):
      return [cell for cell in primary if cell.measure == primary[0].measure]
    lengths = self.lengths(group)
    ends = dict.fromkeys([self.trained(group) or lengths[-1], lengths[-1]])
    measure = next(iter(self.measures(group)))
    return [Cell(group, measure, "mean", length) for length in ends]

  def cell(self, cell: Cell) -> list[Comparison]:
    """Returns the comparisons of a cell with the baseline."""
    return self.at(cell.group, cell.length, cell.measure, cell.part)

  def of(self, group: str, measure: str = "", part: str = "mean") -> list[Comparison]:
    """Returns a group's comparisons by one measure; "": the headline measure."""
    measure = measure or next(iter(self.measures(group)), "")
    return [
      c
      for c in self.comparisons
      if (c.group, c.measure, c.part) == (group, measure, part)
    ]

  def at(
    self, group: str, length: int, measure: str = "", part: str = "mean"
  ) -> list[Comparison]:
    """Returns a group's comparisons at one length, as `of`."""
    return [c for c in self.of(group, measure, part) if c.length == length]

  def measures(self, group: str) -> dict[str, str]:
    """Returns {measure: "lower" or "higher"}, the headline first."""
    return {c.measure: c.better for c in self.comparisons if c.group == group}

  def changed(self, group: str) -> str:
    """Returns the inputs that changed between a group's runs; "": none.

    Where some did, no run of the group is compared.
    """
    return comparable.changed([run for run in self.sweep.of(group) if run.result])

  def parts(self, group: str, measure: str) -> list[str]:
    """Returns the scored parts of the targets, the mean first."""
    wanted = (group, measure)
    parts = (c.part for c in self.comparisons if (c.group, c.measure) == wanted)
    return list(dict.fromkeys(parts))

  def lengths(self, group: str) -> list[int]:
    """Returns the scored lengths of a group, growing."""
    return sorted({c.length for c in self.comparisons if c.group == group})

  def length_name(self, group: str) -> str:
    """Returns what a length is in a group's task."""
    names = [run.fact("length_name") for run in self.finished if run.group == group]
    return next(filter(None, names), OLDER)

  def trained(self, group: str) -> int | None:
    """Returns the scored length nearest to that of training; None without results."""
    train = cells.train_length(self.sweep, group)
    if train is None:
      return None
    return min(self.lengths(group), key=lambda length: abs(length - train))

  @property
  def finished(self) -> list[LoadedRun]:
    """Lists the runs with a result."""
    return [run for run in self.sweep.runs if run.result and not run.again_of]

  @property
  def troubled(self) -> list[tuple[LoadedRun, str, str]]:
    """Lists (run, state, details) of everything without a number."""
    return [
      (run, state, details)
      for run in self.sweep.runs
      for state, details in _troubles(run)
    ]


def _troubles(run: LoadedRun) -> Iterator[tuple[str, str]]:
  """Yields (state, details) of each part of a run that has no number."""
  if not run.result:
    where = [] if run.step is None else [f"step {run.step}"]
    yield run.state, ": ".join(where + [run.error or "no error yet"])
  if run.adding:
    place = "" if run.step is None else f" at step {run.step}"
    details = f"more seeds or scores, {run.adding}{place}; the earlier result is shown"
    yield "extended", details
  for details in run.divergences:
    yield "diverged", details
  if steps := run.fact("rows_lost"):
    details = f"metrics.jsonl lacks {len(steps)} steps, the first is {steps[0]}"
    yield "record damaged", details
  lengths: dict[str, list[str]] = {}
  for length, reason in (run.fact("undefined") or {}).items():
    lengths.setdefault(str(reason), []).append(str(length))
  for reason, undefined in lengths.items():
    yield "undefined", f"length {', '.join(undefined)}: {reason}"


def column(compared: Sequence[Comparison]) -> str:
  """Returns a column's name: 4x, or its length where training lengths differ."""
  times = {c.times for c in compared if c.estimate.mean is not None}
  if len(times) > 1:
    return f"length {compared[0].length}"
  return multiple(min(times, default=compared[0].times))
