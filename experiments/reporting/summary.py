"""Says in sentences what the rows say: the answer, and how it was measured."""

from experiments.reporting import statistics
from experiments.reporting.comparisons import Findings, Row
from experiments.reporting.style import column, measure_name
from experiments.reporting.text import listed

CHANGED = (
  "Each mean is of its own version. For verdicts run the sweep again into another"
  " --workdir, or delete the folders of the runs that had the other version first."
)


def answers(findings: Findings) -> list[tuple[str, tuple[str, str]]]:
  """Returns (group, (its answer, what else is known)), in the plan's order."""
  return [(group, answer(findings, group)) for group in findings.sweep.groups]


def answer(findings: Findings, group: str) -> tuple[str, str]:
  """Returns what a group's verdicts at the longest length say, the best one first."""
  lengths = findings.lengths(group)
  if not lengths:
    states = [f"{run.label} {run.state}" for run in findings.sweep.of(group)]
    return f"No run has finished ({listed(states or ['none was planned'])}).", ""
  if changed := findings.changed(group):
    return f"No verdict: {changed}.", CHANGED
  rows = findings.at(group, lengths[-1])
  ranked = ranking(rows, findings.sweep.baseline)
  if not ranked:
    return f"No run has a whole score at length {lengths[-1]}.", _others(findings, rows)
  if len(rows) == 1:
    return _best(findings, ranked), ""
  apart = _apart(rows, ranked)
  if len(ranked) == 1 and apart:
    return f"No verdict. {where(_whole(rows))} {apart}", _others(findings, rows)
  more = [_lead(findings, group, ranked), _others(findings, rows, ranked[0]), apart]
  trained = findings.trained(group)
  if trained != lengths[-1]:
    more.append(_trained(findings, group, trained))
  return _best(findings, ranked), " ".join(filter(None, more))


def ranking(rows: list[Row], baseline: str | None) -> list[Row]:
  """Returns the rows with every planned seed that can be ranked, best first.

  They have the targets and the seeds of the baseline, else those of the first of them.
  """
  whole = _whole(rows)
  first = next((row for row in whole if row.label == baseline), (whole or rows)[0])
  alike = [r for r in whole if (r.target, r.seeds) == (first.target, first.seeds)]
  return sorted(
    alike, key=lambda r: r.estimate.mean if r.better == "lower" else -r.estimate.mean
  )


def _whole(rows: list[Row]) -> list[Row]:
  return [
    row
    for row in rows
    if row.estimate.mean is not None and row.verdict not in ("diverged", "undefined")
  ]


def _apart(rows: list[Row], ranked: list[Row]) -> str:
  """Says which rows have other targets or seeds than those that are ranked."""
  others = [row for row in _whole(rows) if row not in ranked]
  targets = [row.label for row in others if row.target != ranked[0].target]
  seeds = [row.label for row in others if row.label not in targets]
  ours, sentences = listed([row.label for row in ranked]), []
  if targets:
    sentences.append(f"{listed(targets)}: scored on other targets than {ours}.")
  if seeds:
    sentences.append(f"{listed(seeds)}: other seeds than {ours}.")
  return " ".join(sentences)


def level(ranked: list[Row]) -> list[str]:
  """Returns the labels of the rows whose mean is the best one but for rounding."""
  top = ranked[0].estimate.mean
  near = lambda mean: abs(mean - top) <= statistics.ROUNDING * max(abs(mean), abs(top))
  return [row.label for row in ranked if near(row.estimate.mean)]


def _best(findings, ranked) -> str:
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
  if top.verdict in ("better", "worse"):
    size = number(abs(gap.mean))
    return f"{text}, {size} {top.verdict} than {baseline}{between(gap)}."
  if top.verdict == "not compared":
    return f"{text}. There is nothing to compare with: {top.reason}."
  return f"{text}, but not resolved from {baseline} ({top.reason})."


def _lead(findings, group, ranked) -> str:
  """Compares the best with the next: a ranking alone is not a finding."""
  if len(ranked) < 2 or ranked[1].label == findings.sweep.baseline:
    return ""
  if ranked[0].label == findings.sweep.baseline:
    return ""
  runs = {run.label: run for run in findings.sweep.of(group)}
  top, following = ranked[:2]
  at = top.length, top.measure, top.part
  values = [runs[row.label].values(*at) for row in (top, following)]
  gap, p = statistics.paired(*({s: x[s] for s in top.seeds} for x in values))
  if p is None or p >= statistics.ALPHA:
    return f"Its lead over the next, {following.label}, did not resolve."
  return (
    f"The next, {following.label}, is {number(abs(gap.mean))} behind{between(gap)}."
  )


def _others(findings, rows: list[Row], best: Row | None = None) -> str:
  """Groups the other variants by verdict, one short sentence each."""
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


def _trained(findings, group, length) -> str:
  ranked = ranking(findings.at(group, length), findings.sweep.baseline)
  if len(ranked) < 2:
    return ""
  tied = level(ranked)
  verb = "is best" if len(tied) == 1 else "are level"
  return f"{where(ranked)} {listed(tied)} {verb} ({score(ranked[0])})."


def score(row: Row) -> str:
  """Returns "2.740 bits per byte" or, for what is no unit, "accuracy 0.423"."""
  name, mean = measure_name(row.measure), number(row.estimate.mean)
  return f"{mean} {name}" if "_per_" in row.measure else f"{name} {mean}"


def where(rows: list[Row]) -> str:
  """Returns "At 8x the trained length", or "At length 256" where that differs."""
  times = column(rows)
  if not times.endswith("x"):
    return f"At {times}"
  return "At the trained length" if times == "1x" else f"At {times} the trained length"


def number(value: float | None, digits: int = 3) -> str:
  """Returns a score as text: three decimals, with a true minus sign."""
  if value is None:
    return "–"
  if abs(value) >= 1000:
    return f"{value:,.0f}".replace("-", "−")
  text = f"{value:.{digits}f}"
  return text.replace("-", "−") if float(text) else text.lstrip("-")


def between(gap) -> str:
  """Returns a gap's interval, as sizes, for the end of a sentence."""
  if gap.low is None:
    return ""
  low, high = sorted([gap.low, gap.high], key=abs)
  if gap.low < 0 < gap.high:
    return f" (± {number(gap.half)})"
  return f" (95% interval {number(abs(low))} to {number(abs(high))})"


def count(value: float | None) -> str:
  """Returns 12,345 or 1.23e+09 for a number of things, – for an unknown one."""
  if not isinstance(value, int | float):
    return "–"
  return f"{value:,.0f}" if value < 1e8 else f"{value:.3g}"
