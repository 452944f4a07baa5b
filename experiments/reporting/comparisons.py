"""Comparisons with the baseline, by group, variant, length, measure and part."""

import dataclasses
import os
from collections.abc import Hashable, Iterator, Mapping, Sequence

from experiments.reporting import comparable, load, verdicts
from experiments.reporting.statistics import Estimate
from experiments.reporting.text import multiple


@dataclasses.dataclass(frozen=True)
class Comparison:
  """One line of results.csv: a score, its difference from the baseline, the verdict.

  length       context length, in tokens or symbols
  times        length over the training length
  better       "lower" or "higher"
  part         "mean", or the part of the targets that is scored
  planned      seeds of the plan; the estimate counts those with a value
  estimate     mean over seeds
  difference   estimate minus the baseline's, paired by seed
  p, p_holm    of the difference, alone and after Holm's correction; None: not tested
  seeds        those of the estimate
  target       identifies the scored targets: equal values are equal targets
  """

  group: str
  label: str
  length: int
  times: float
  measure: str
  better: str
  part: str
  planned: int
  estimate: Estimate
  difference: Estimate
  p: float | None
  p_holm: float | None
  verdict: str
  reason: str
  seeds: tuple[int, ...]
  target: Hashable  # None: nothing was scored

  @property
  def complete(self) -> bool:
    """Returns whether the mean is over all planned seeds."""
    return self.estimate.mean is not None and self.estimate.count == self.planned


@dataclasses.dataclass(frozen=True)
class Findings:
  """A sweep with all its comparisons, the numbers of its report."""

  sweep: load.Sweep
  comparisons: tuple[Comparison, ...]

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

  def trained(self, group: str) -> int | None:
    """Returns the scored length nearest to that of training; None without results."""
    train = next(
      (r.fact("train_length") for r in self.sweep.of(group) if r.result), None
    )
    if train is None:
      return None
    return min(self.lengths(group), key=lambda length: abs(length - train))

  @property
  def finished(self) -> list[load.LoadedRun]:
    """Lists the runs with a result."""
    return [run for run in self.sweep.runs if run.result and not run.again_of]

  @property
  def troubled(self) -> list[tuple[load.LoadedRun, str, str]]:
    """Lists (run, state, details) of everything without a number."""
    return [
      (run, state, details)
      for run in self.sweep.runs
      for state, details in _troubles(run)
    ]


def _troubles(run: load.LoadedRun) -> Iterator[tuple[str, str]]:
  """Yields (state, details) of each part of a run that has no number."""
  if not run.result:
    where = [] if run.step is None else [f"step {run.step}"]
    yield run.state, ": ".join(where + [run.error or "no error yet"])
  for seed, step in (run.fact("diverged") or {}).items():
    yield "diverged", f"seed {seed} at step {step}"
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


def find(workdir: str | os.PathLike[str]) -> Findings:
  """Returns the comparisons of a sweep's folder; raises ReportError."""
  sweep = load.read(workdir)
  compared: list[Comparison] = []
  for group in sweep.groups:
    compared += _compare_group(sweep, group)
  return Findings(sweep, tuple(compared))


def _compare_group(sweep: load.Sweep, group: str) -> list[Comparison]:
  finished = [run for run in sweep.of(group) if run.result]
  measures = {m["name"]: m["better"] for run in finished for m in run.fact("measures")}
  lengths = sorted({length for run in finished for length in run.fact("lengths")})
  compared: list[Comparison] = []
  for measure, better in measures.items():
    for part in _parts(finished, measure):
      for length in lengths:
        compared += _compare_runs(sweep, group, length, measure, better, part)
  return compared


def _compare_runs(
  sweep: load.Sweep, group: str, length: int, measure: str, better: str, part: str
) -> list[Comparison]:
  """Compares all runs of a group with the baseline, by one score.

  length    context length that is scored
  measure   name of the score
  better    "lower" or "higher"
  part      of the targets; "mean": all of them
  """
  runs = sweep.of(group)
  scores = {run.label: run.values(length, measure, part) for run in runs}
  scored = [run for run in runs if scores[run.label]]
  targets = comparable.targets(scored, length, measure)
  excused = _excuses(sweep.baseline, runs, length, scores, targets)
  judgements = verdicts.compare(scores, sweep.baseline, better, excused)
  train = next(run.fact("train_length") for run in runs if run.result)
  return [
    Comparison(
      group=group,
      label=run.label,
      length=length,
      times=run.times.get(length, length / train),
      measure=measure,
      better=better,
      part=part,
      planned=len(run.fact("seeds") or ()),
      target=targets.get(run.label),
      **{
        field.name: getattr(judgements[run.label], field.name)
        for field in dataclasses.fields(verdicts.Judgement)
      },
    )
    for run in runs
  ]


def _excuses(
  baseline: str | None,
  runs: Sequence[load.LoadedRun],
  length: int,
  scores: Mapping[str, Mapping[int, float]],
  targets: Mapping[str, Hashable],
) -> dict[str, tuple[str, str]]:
  """Returns {label: (verdict, reason)} of the runs that must not be tested.

  baseline   label of the run that the others are compared with
  length     context length of the column
  scores     {label: {seed: value}}
  targets    {label: identity of the scored targets}
  """
  changed = comparable.changed([run for run in runs if run.result])
  reference = None if baseline is None else targets.get(baseline)
  excuses = {}
  for run in runs:
    label = run.label
    if excuse := _excuse(run, length, scores[label]):
      excuses[label] = excuse
    elif changed and label != baseline:
      excuses[label] = "not compared", changed
    elif reference is not None and targets.get(label) != reference:
      excuses[label] = "not compared", f"scored on other targets than {baseline}"
  return excuses


def _excuse(
  run: load.LoadedRun, length: int, values: Mapping[int, float]
) -> tuple[str, str] | None:
  """Returns (verdict, reason) for a score that lacks seeds, or None."""
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


def _parts(runs: Sequence[load.LoadedRun], measure: str) -> list[str]:
  """Returns the scored parts, the mean first."""
  parts = dict.fromkeys(
    score.get("part", "mean")
    for run in runs
    for score in run.fact("scores")
    if score["measure"] == measure
  )
  return sorted(parts, key=lambda part: part != "mean")
