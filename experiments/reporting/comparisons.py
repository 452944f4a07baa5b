"""Turns runs into rows: one judged row per group, variant, length, measure and part."""

import dataclasses
import pathlib
from collections.abc import Hashable, Sequence

from experiments.reporting import comparable, load, statistics
from experiments.reporting.statistics import Estimate


@dataclasses.dataclass(frozen=True)
class Row:
  """Holds one line of results.csv."""

  group: str
  label: str
  length: int
  times: float  # length over the trained length
  measure: str
  better: str
  part: str
  planned: int  # seeds of the plan; the estimate counts those with a value
  estimate: Estimate
  difference: Estimate
  p: float | None
  p_holm: float | None
  verdict: str
  reason: str
  seeds: tuple[int, ...]  # of the estimate
  target: Hashable  # what was scored: equal values are equal targets; None: nothing


@dataclasses.dataclass(frozen=True)
class Findings:
  """Holds a sweep and everything its report says in numbers."""

  sweep: load.Sweep
  rows: tuple[Row, ...]

  def of(self, group: str, measure: str = "", part: str = "mean") -> list[Row]:
    """Returns a group's rows of one measure (the headline if none is named)."""
    measure = measure or next(iter(self.measures(group)), "")
    return [
      row
      for row in self.rows
      if (row.group, row.measure, row.part) == (group, measure, part)
    ]

  def at(
    self, group: str, length: int, measure: str = "", part: str = "mean"
  ) -> list[Row]:
    return [row for row in self.of(group, measure, part) if row.length == length]

  def measures(self, group: str) -> dict[str, str]:
    """Returns {measure: "lower" or "higher"}, the headline first."""
    found = (row for row in self.rows if row.group == group)
    return {row.measure: row.better for row in found}

  def changed(self, group: str) -> str:
    """Returns what changed between the runs of a group, so that none is judged."""
    return comparable.changed([run for run in self.sweep.of(group) if run.result])

  def parts(self, group: str, measure: str) -> list[str]:
    found = (r for r in self.rows if (r.group, r.measure) == (group, measure))
    return list(dict.fromkeys(row.part for row in found))

  def lengths(self, group: str) -> list[int]:
    return sorted({row.length for row in self.rows if row.group == group})

  def trained(self, group: str) -> int | None:
    """Returns the trained length, or the nearest one that was scored."""
    finished = [run for run in self.sweep.of(group) if run.result]
    if not finished:
      return None
    train = finished[0].result["train_length"]
    return min(self.lengths(group), key=lambda length: abs(length - train))

  @property
  def finished(self) -> list[load.Run]:
    return [run for run in self.sweep.runs if run.result]

  @property
  def troubled(self) -> list[tuple[load.Run, str, str]]:
    """Lists (run, what happened, details) of all that has no number."""
    rows = []
    for run in self.sweep.runs:
      if not run.result:
        where = [] if run.step is None else [f"step {run.step}"]
        rows.append((run, run.state, ": ".join(where + [run.error or "no error yet"])))
      for seed, step in (run.fact("diverged") or {}).items():
        rows.append((run, "diverged", f"seed {seed} at step {step}"))
      if steps := run.fact("rows_lost"):
        details = f"metrics.jsonl lacks {len(steps)} steps, the first is {steps[0]}"
        rows.append((run, "record damaged", details))
      lengths: dict[str, list[str]] = {}
      for length, reason in (run.fact("undefined") or {}).items():
        lengths.setdefault(str(reason), []).append(str(length))
      for reason, which in lengths.items():
        rows.append((run, "undefined", f"length {', '.join(which)}: {reason}"))
    return rows


def find(workdir: str | pathlib.Path) -> Findings:
  """Reads a sweep's folder and judges all that can be judged."""
  sweep = load.read(workdir)
  rows = []
  for group in sweep.groups:
    rows += _judge_group(sweep, group)
  return Findings(sweep, tuple(rows))


def _judge_group(sweep: load.Sweep, group: str) -> list[Row]:
  runs = sweep.of(group)
  finished = [run for run in runs if run.result]
  measures = {
    m["name"]: m["better"] for run in finished for m in run.result["measures"]
  }
  lengths = sorted({length for run in finished for length in run.result["lengths"]})
  rows = []
  for measure, better in measures.items():
    for part in _parts(finished, measure):
      for length in lengths:
        rows += _judge_column(sweep, group, runs, length, measure, better, part)
  return rows


def _judge_column(sweep, group, runs, length, measure, better, part) -> list[Row]:
  scores = {run.label: run.values(length, measure, part) for run in runs}
  scored = [run for run in runs if scores[run.label]]
  targets = comparable.targets(scored, length, measure)
  excused = _excuses(sweep.baseline, runs, length, scores, targets)
  compared = statistics.compare(scores, sweep.baseline, better, excused)
  train = next(run.result["train_length"] for run in runs if run.result)
  return [
    Row(
      group,
      run.label,
      length,
      run.times.get(length, length / train),
      measure,
      better,
      part,
      len(run.fact("seeds") or ()),
      target=targets.get(run.label),
      **{
        field.name: getattr(compared[run.label], field.name)
        for field in dataclasses.fields(statistics.Comparison)
      },
    )
    for run in runs
  ]


def _excuses(
  baseline: str | None,
  runs: Sequence[load.Run],
  length: int,
  scores: dict[str, dict],
  targets: dict[str, Hashable],
) -> dict[str, tuple[str, str]]:
  """Returns {label: (verdict, reason)} of the cells that no test may judge."""
  changed = comparable.changed([run for run in runs if run.result])
  excuses = {}
  for run in runs:
    label = run.label
    other = baseline in targets and targets.get(label) != targets[baseline]
    if own := _excuse(run, length, scores[label]):
      excuses[label] = own
    elif changed and label != baseline:
      excuses[label] = "not compared", changed
    elif other:
      excuses[label] = "not compared", f"scored on other targets than {baseline}"
  return excuses


def _excuse(run: load.Run, length: int, values: dict) -> tuple[str, str] | None:
  """Returns (verdict, reason) for a cell that has no whole score, or None."""
  if not run.result:
    failed = run.state in ("failed", "damaged")
    return "failed" if failed else "unfinished", run.error or run.state
  undefined = run.fact("undefined") or {}
  if str(length) in undefined:
    return "undefined", str(undefined[str(length)])
  lost = run.fact("diverged") or {}
  if lost:
    steps = ", ".join(f"seed {seed} at step {step}" for seed, step in lost.items())
    return "diverged", steps
  if length not in run.result["lengths"]:
    return "undefined", f"not scored at length {length}"
  missing = [seed for seed in run.result["seeds"] if seed not in values]
  if missing:
    return "undefined", f"no finite value in seeds {', '.join(map(str, missing))}"
  return None


def _parts(runs: list[load.Run], measure: str) -> list[str]:
  """Returns the parts that were scored, the mean first."""
  found = dict.fromkeys(
    score.get("part", "mean")
    for run in runs
    for score in run.result["scores"]
    if score["measure"] == measure
  )
  return sorted(found, key=lambda part: part != "mean")
