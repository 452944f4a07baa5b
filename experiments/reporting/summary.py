"""The answer of each group, in sentences."""

import math

from experiments.reporting import statistics
from experiments.reporting.comparisons import Finding, Findings, column
from experiments.reporting.text import between, listed, measure_name, number

CHANGED = (
  "Each mean is of its run's own version. For verdicts run the sweep again into another"
  " --workdir, or first delete the folders of the runs with the other version."
)


def answers(findings: Findings) -> list[tuple[str, tuple[str, str]]]:
  """Returns (group, (its answer, further findings)), in the plan's order."""
  return [(group, answer(findings, group)) for group in findings.sweep.groups]


def answer(findings: Findings, group: str) -> tuple[str, str]:
  """Returns a group's answer at the longest length, and its further findings."""
  lengths = findings.lengths(group)
  if not lengths:
    states = [f"{run.label} {run.state}" for run in findings.sweep.of(group)]
    return f"No run has finished ({listed(states or ['none was planned'])}).", ""
  if changed := findings.changed(group):
    return f"No verdict: {changed}.", CHANGED
  rows = findings.at(group, lengths[-1])
  ranked = ranking(rows, findings.sweep.baseline)
  if not ranked:
    return f"No run has a score of all seeds at length {lengths[-1]}.", _others(
      findings, rows
    )
  if len(rows) == 1:
    return _best(findings, ranked), ""
  apart = _apart(rows, ranked)
  if len(ranked) == 1 and apart:
    return f"No verdict. {where(_whole(rows))} {apart}", _others(findings, rows)
  more = [_lead(findings, group, ranked), _others(findings, rows, ranked[0]), apart]
  trained = findings.trained(group)
  if trained is not None and trained != lengths[-1]:
    more.append(_trained(findings, group, trained))
  return _best(findings, ranked), " ".join(filter(None, more))


def ranking(rows: list[Finding], baseline: str | None) -> list[Finding]:
  """Returns the comparable rows with a mean, best first.

  Comparable rows have the targets and the seeds of the baseline; without a baseline,
  those of the first row.
  """
  whole = _whole(rows)
  first = next((row for row in whole if row.label == baseline), (whole or rows)[0])
  alike = [r for r in whole if (r.target, r.seeds) == (first.target, first.seeds)]
  return sorted(alike, key=_loss)


def _loss(row: Finding) -> float:
  """Returns the mean with the sign for which lower is better."""
  if row.estimate.mean is None:
    return math.inf
  return row.estimate.mean if row.better == "lower" else -row.estimate.mean


def _whole(rows: list[Finding]) -> list[Finding]:
  """Returns the rows with a mean over all their seeds."""
  return [
    row
    for row in rows
    if row.estimate.mean is not None and row.verdict not in ("diverged", "undefined")
  ]


def _apart(rows: list[Finding], ranked: list[Finding]) -> str:
  """Returns sentences on the rows with other targets or seeds than the ranked ones."""
  others = [row for row in _whole(rows) if row not in ranked]
  targets = [row.label for row in others if row.target != ranked[0].target]
  seeds = [row.label for row in others if row.label not in targets]
  ours, sentences = listed([row.label for row in ranked]), []
  if targets:
    sentences.append(f"{listed(targets)}: scored on other targets than {ours}.")
  if seeds:
    sentences.append(f"{listed(seeds)}: other seeds than {ours}.")
  return " ".join(sentences)


def level(ranked: list[Finding]) -> list[str]:
  """Returns the labels of the rows whose mean equals the best one up to rounding."""
  top = _loss(ranked[0])

  def tied(value: float) -> bool:
    return abs(value - top) <= statistics.ROUNDING * max(abs(value), abs(top))

  return [row.label for row in ranked if tied(_loss(row))]


def _best(findings: Findings, ranked: list[Finding]) -> str:
  top, baseline = ranked[0], findings.sweep.baseline
  tied = level(ranked)
  if len(tied) > 1:
    return f"{where(ranked)} {listed(tied)} are level: {score(top)}."
  if len(findings.sweep.of(top.group)) == 1:
    return (
      f"{where(ranked)} {top.label}: {score(top)}. Nothing to compare it with is here."
    )
  text = f"{where(ranked)} {top.label} is best: {score(top)}"
  gap = top.difference
  if top.label == baseline:
    return f"{text}, the baseline itself."
  if top.verdict in ("better", "worse") and gap.mean is not None:
    size = number(abs(gap.mean))
    return f"{text}, {size} {top.verdict} than {baseline}{between(gap)}."
  if top.verdict == "not compared":
    return f"{text}. There is nothing to compare with: {top.reason}."
  return f"{text}, but not resolved from {baseline} ({top.reason})."


def _lead(findings: Findings, group: str, ranked: list[Finding]) -> str:
  """Returns a sentence on the best row against the next: a rank alone is no finding."""
  if len(ranked) < 2 or ranked[1].label == findings.sweep.baseline:
    return ""
  if ranked[0].label == findings.sweep.baseline:
    return ""
  runs = {run.label: run for run in findings.sweep.of(group)}
  top, following = ranked[:2]

  def values(row: Finding) -> dict[int, float]:
    scores = runs[row.label].values(top.length, top.measure, top.part)
    return {seed: scores[seed] for seed in top.seeds}

  gap, p = statistics.paired(values(top), values(following))
  if gap.mean is None or p is None or p >= statistics.ALPHA:
    return f"Its lead over the next, {following.label}, did not resolve."
  return (
    f"The next, {following.label}, is {number(abs(gap.mean))} behind{between(gap)}."
  )


def _others(
  findings: Findings, rows: list[Finding], best: Finding | None = None
) -> str:
  """Returns a sentence for each verdict of the other variants."""
  sentences, baseline = [], findings.sweep.baseline
  for verdict in statistics.VERDICTS:
    labels = [r.label for r in rows if r.verdict == verdict and r is not best]
    if not labels or verdict in ("baseline", "not compared"):
      continue
    also = "Also b" if best is not None and best.verdict == verdict else "B"
    sentences.append(
      {
        "better": f"{also}etter than {baseline}: {listed(labels)}.",
        "worse": f"Worse than {baseline}: {listed(labels)}.",
        "did not resolve": f"Not resolved from {baseline}: {listed(labels)}.",
        "undefined": f"Undefined there: {listed(labels)}.",
      }.get(verdict, f"{verdict.capitalize()}: {listed(labels)}.")
    )
  return " ".join(sentences)


def _trained(findings: Findings, group: str, length: int) -> str:
  """Returns a sentence on the best variants at the training length."""
  ranked = ranking(findings.at(group, length), findings.sweep.baseline)
  if len(ranked) < 2:
    return ""
  tied = level(ranked)
  verb = "is best" if len(tied) == 1 else "are level"
  return f"{where(ranked)} {listed(tied)} {verb} ({score(ranked[0])})."


def score(row: Finding) -> str:
  """Returns "2.740 bits per byte", or "accuracy 0.423" for a measure without unit."""
  name, mean = measure_name(row.measure), number(row.estimate.mean)
  return f"{mean} {name}" if "_per_" in row.measure else f"{name} {mean}"


def where(rows: list[Finding]) -> str:
  """Returns "At 8x the training length", or "At length 256" where that differs."""
  times = column(rows)
  if not times.endswith("x"):
    return f"At {times}"
  multiple = "" if times == "1x" else f"{times} "
  return f"At {multiple}the training length"
