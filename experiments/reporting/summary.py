"""The answer of each group, in sentences."""

from experiments.reporting import statistics
from experiments.reporting.comparisons import Comparison, Findings, column
from experiments.reporting.statistics import lower_is_better
from experiments.reporting.text import between, listed, measure_name, number
from experiments.reporting.verdicts import ALPHA, VERDICTS

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
  compared = findings.at(group, lengths[-1])
  ranked = ranking(compared, findings.sweep.baseline)
  if not ranked:
    return f"No run has a score of all seeds at length {lengths[-1]}.", _others(
      findings, compared
    )
  if len(compared) == 1:
    return _best(findings, ranked), ""
  apart = _apart(compared, ranked)
  if len(ranked) == 1 and apart:
    return f"No verdict. {where(_whole(compared))} {apart}", _others(findings, compared)
  more = [_lead(findings, group, ranked), _others(findings, compared, ranked[0]), apart]
  trained = findings.trained(group)
  if trained is not None and trained != lengths[-1]:
    more.append(_trained(findings, group, trained))
  return _best(findings, ranked), " ".join(filter(None, more))


def ranking(compared: list[Comparison], baseline: str | None) -> list[Comparison]:
  """Returns the comparable variants with a mean, best first.

  Comparable ones have the targets and the seeds of the baseline; without a baseline,
  those of the first variant.
  """
  whole = _whole(compared)
  first = next((c for c in whole if c.label == baseline), (whole or compared)[0])
  alike = [c for c in whole if (c.target, c.seeds) == (first.target, first.seeds)]
  return sorted(alike, key=_signed_mean)


def _signed_mean(comparison: Comparison) -> float:
  return lower_is_better(comparison.estimate.mean, comparison.better)


def _whole(compared: list[Comparison]) -> list[Comparison]:
  """Returns the comparisons with a mean over all their seeds."""
  return [
    c
    for c in compared
    if c.estimate.mean is not None and c.verdict not in ("diverged", "undefined")
  ]


def _apart(compared: list[Comparison], ranked: list[Comparison]) -> str:
  """Returns sentences on variants with other targets or seeds than the ranked ones."""
  others = [c for c in _whole(compared) if c not in ranked]
  targets = [c.label for c in others if c.target != ranked[0].target]
  seeds = [c.label for c in others if c.label not in targets]
  ours, sentences = listed([c.label for c in ranked]), []
  if targets:
    sentences.append(f"{listed(targets)}: scored on other targets than {ours}.")
  if seeds:
    sentences.append(f"{listed(seeds)}: other seeds than {ours}.")
  return " ".join(sentences)


def level(ranked: list[Comparison]) -> list[str]:
  """Returns the labels of the variants whose mean is the best one, up to rounding."""
  top = _signed_mean(ranked[0])

  def tied(value: float) -> bool:
    return abs(value - top) <= statistics.ROUNDING * max(abs(value), abs(top))

  return [c.label for c in ranked if tied(_signed_mean(c))]


def _best(findings: Findings, ranked: list[Comparison]) -> str:
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


def _lead(findings: Findings, group: str, ranked: list[Comparison]) -> str:
  """Returns a sentence on the best variant's lead: a rank alone is no finding."""
  if len(ranked) < 2 or ranked[1].label == findings.sweep.baseline:
    return ""
  if ranked[0].label == findings.sweep.baseline:
    return ""
  runs = {run.label: run for run in findings.sweep.of(group)}
  top, following = ranked[:2]

  def values(comparison: Comparison) -> dict[int, float]:
    scores = runs[comparison.label].values(top.length, top.measure, top.part)
    return {seed: scores[seed] for seed in top.seeds}

  gap, p = statistics.paired(values(top), values(following))
  if gap.mean is None or p is None or p >= ALPHA:
    return f"Its lead over the next, {following.label}, did not resolve."
  return (
    f"The next, {following.label}, is {number(abs(gap.mean))} behind{between(gap)}."
  )


def _others(
  findings: Findings, compared: list[Comparison], best: Comparison | None = None
) -> str:
  """Returns a sentence for each verdict of the other variants."""
  sentences, baseline = [], findings.sweep.baseline
  for verdict in VERDICTS:
    labels = [c.label for c in compared if c.verdict == verdict and c is not best]
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


def score(comparison: Comparison) -> str:
  """Returns "2.740 bits per byte", or "accuracy 0.423" for a measure without unit."""
  name = measure_name(comparison.measure)
  mean = number(comparison.estimate.mean)
  return f"{mean} {name}" if "_per_" in comparison.measure else f"{name} {mean}"


def where(compared: list[Comparison]) -> str:
  """Returns "At 8x the training length", or "At length 256" where that differs."""
  times = column(compared)
  if not times.endswith("x"):
    return f"At {times}"
  multiple = "" if times == "1x" else f"{times} "
  return f"At {multiple}the training length"
