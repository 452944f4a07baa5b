"""The answer of each group, in sentences."""

from experiments.reporting import statistics
from experiments.reporting.cells import Cell
from experiments.reporting.findings import Comparison, Findings, column
from experiments.reporting.judgements import VERDICTS
from experiments.reporting.statistics import lower_is_better
from experiments.reporting.text import SHOWN, between, listed, measure_name, number

CHANGED = (
  "Each mean is of its run's own version. For verdicts run the sweep again into another"
  " --workdir, or first delete the folders of the runs with the other version."
)


def answers(findings: Findings) -> list[tuple[str, tuple[str, str]]]:
  """Returns (group, (its answer, further findings)), in the plan's order."""
  return [(group, answer(findings, group)) for group in findings.sweep.groups]


def answer(findings: Findings, group: str) -> tuple[str, str]:
  """Returns a group's answer at the longest judged length, and its further findings."""
  if not findings.lengths(group):
    states = [f"{run.label} {run.state}" for run in findings.sweep.of(group)]
    return f"No run has finished ({listed(states or ['none was planned'])}).", ""
  if changed := findings.changed(group):
    return f"No verdict: {changed}.", CHANGED
  *others, last = findings.main(group)
  compared = findings.cell(last)
  ranked = _ranked(findings, compared)
  if not ranked:
    return f"No run has a score of all seeds at length {last.length}.", _others(
      findings, compared
    )
  if len(compared) == 1:
    return _best(findings, ranked), ""
  apart = _apart(compared, ranked)
  if len(ranked) == 1 and apart:
    return f"No verdict. {where(_whole(compared))} {apart}", _others(findings, compared)
  more = [
    _next(findings, ranked),
    _others(findings, compared, ranked[0]),
    *_pairs(findings, last),
    apart,
    *(_shorter(findings, cell) for cell in others),
  ]
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


def _ranked(findings: Findings, compared: list[Comparison]) -> list[Comparison]:
  """Returns `ranking`; where seeds were added by need, by differences.

  Means over unequal seeds are not comparable, differences from the baseline over the
  seeds that it has too are.
  """
  baseline = findings.sweep.baseline
  first = next((c for c in _whole(compared) if c.label == baseline), None)
  if findings.looks is None or first is None:
    return ranking(compared, baseline)

  def lead(comparison: Comparison) -> float:
    mean = 0.0 if comparison is first else comparison.difference.mean
    return lower_is_better(mean, comparison.better)

  alike = [c for c in _whole(compared) if c.target == first.target]
  return sorted(alike, key=lead)


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
  if len(ranked) == 1:
    return (
      f"{where(ranked)} {top.label} has {score(top)}; no other variant here has a score"
      " to compare it with."
    )
  text = f"{where(ranked)} {_claim(findings, ranked)}"
  gap = top.difference
  if top.label == baseline:
    return f"{text}, the baseline itself."
  if top.verdict in ("better", "worse") and gap.mean is not None:
    return f"{text}, {_difference(top)}."
  if top.verdict == "equivalent":
    return f"{text}, equivalent to {baseline}{between(gap)}."
  if top.verdict == "not compared":
    return f"{text}. There is nothing to compare with: {top.reason}."
  if top.verdict == "exploratory":
    return f"{text}."
  return f"{text}, but is not resolved from {baseline} ({top.reason}{_more(top)})."


def _claim(findings: Findings, ranked: list[Comparison]) -> str:
  """Returns who is best, or who leads; a rank alone is no finding."""
  top = ranked[0]
  leaders = findings.leaders.get(top.cell, ())
  if leaders == (top.label,):
    return f"{top.label} is best: {score(top)}"
  if top.label in leaders:
    scored = {c.label: c for c in ranked}
    names = [x for x in scored if x in leaders]
    means = [number(scored[x].estimate.mean) for x in names]
    name = measure_name(top.measure)
    every = len(names) == len(ranked)
    if len(names) > 2:  # those behind may be resolved from each other
      verb = "has the best mean" if every else "leads"
      others = f"{top.label} {verb}, not resolved from {listed(names[1:])}"
      return f"{others}: {listed(means)} {name}"
    verb = "are" if every else "lead,"
    return (
      f"{listed(names)} {verb} not resolved from each other: {listed(means)} {name}"
    )
  best = "mean"
  if findings.looks and top.label != findings.sweep.baseline:
    best = f"difference from {findings.sweep.baseline}"
  return f"{top.label} has the best {best}, {score(top)}"


def _next(findings: Findings, ranked: list[Comparison]) -> str:
  """Returns a sentence on the next variant, where one is best."""
  if len(ranked) < 2 or findings.sweep.baseline in [c.label for c in ranked[:2]]:
    return ""
  if findings.leaders.get(ranked[0].cell) != (ranked[0].label,):
    return ""
  return f"The next is {ranked[1].label}: {score(ranked[1])}."


def _others(
  findings: Findings, compared: list[Comparison], best: Comparison | None = None
) -> str:
  """Returns a sentence for each verdict of the other variants."""
  sentences, baseline = [], findings.sweep.baseline
  for verdict in VERDICTS:
    some = [c for c in compared if c.verdict == verdict and c is not best]
    if not some or verdict in ("baseline", "not compared", "exploratory"):
      continue
    labels = listed([c.label for c in some])
    also = "Also b" if best is not None and best.verdict == verdict else "B"
    unresolved = listed([f"{c.label}{_more(c, ' (', ')')}" for c in some])
    sentences.append(
      {
        "better": f"{also}etter than {baseline}: {labels}.",
        "worse": f"Worse than {baseline}: {labels}.",
        "equivalent": f"Equivalent to {baseline}: {labels}.",
        "did not resolve": f"Not resolved from {baseline}: {unresolved}.",
        "undefined": f"Undefined there: {labels}.",
      }.get(verdict, f"{verdict.capitalize()}: {labels}.")
    )
  return " ".join(sentences)


def _more(comparison: Comparison, before: str = "; ", after: str = "") -> str:
  """Returns the seeds that would resolve a comparison, "" where unknown."""
  more = comparison.more
  return f"{before}{more}{after}" if more else ""


def _pairs(findings: Findings, cell: Cell) -> list[str]:
  """Returns a sentence for each of the plan's named pairs."""
  if isinstance(findings.sweep.comparisons.contrasts, str):
    return []
  named = [c for c in findings.pairs if c.cell == cell]
  return [_pair(c) for c in named[:SHOWN]] + (
    [f"{len(named) - SHOWN} more pairs are in the table."] if named[SHOWN:] else []
  )


def _pair(comparison: Comparison) -> str:
  first, second, gap = comparison.label, comparison.against, comparison.difference
  if comparison.verdict in ("better", "worse") and gap.mean is not None:
    return f"{first} is {_difference(comparison)}."
  if comparison.verdict == "equivalent":
    return f"{first} and {second} are equivalent{between(gap)}."
  if comparison.verdict == "did not resolve":
    return f"{first} is not resolved from {second}{_more(comparison, ' (', ')')}."
  return f"{first} and {second}: {comparison.verdict} ({comparison.reason})."


def _difference(comparison: Comparison) -> str:
  """Returns "0.479 better than none (...)" of a resolved comparison.

  A verdict of an early look stays, also where the seeds added since measure the
  opposite.
  """
  gap, verdict = comparison.difference, comparison.verdict
  assert gap.mean is not None
  lower = lower_is_better(gap.mean, comparison.better) < 0
  if lower == (verdict == "better"):
    return f"{number(abs(gap.mean))} {verdict} than {comparison.against}{between(gap)}"
  return (
    f"{verdict} than {comparison.against} by the verdict of an early look; over all"
    f" seeds the difference is {number(gap.mean)}{between(gap)}"
  )


def _shorter(findings: Findings, cell: Cell) -> str:
  """Returns a sentence on the best variants at a shorter length."""
  ranked = _ranked(findings, findings.cell(cell))
  if len(ranked) < 2:
    return ""
  tied = level(ranked)
  if len(tied) > 1:
    return f"{where(ranked)} {listed(tied)} are level ({score(ranked[0])})."
  return f"{where(ranked)} {_claim(findings, ranked)}."


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
