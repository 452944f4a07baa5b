"""Says in sentences what the rows say: the answer, and how it was measured."""

from experiments import statistics
from experiments.figures import measure_name, multiple
from experiments.findings import Findings, Row

SHOWN = 6  # names in one list before "and 3 more"


def answers(findings: Findings) -> list[tuple[str, tuple[str, str]]]:
  """Returns (group, (its answer, what else is known)), in the plan's order."""
  return [(group, answer(findings, group)) for group in findings.sweep.groups]


def answer(findings: Findings, group: str) -> tuple[str, str]:
  """Returns what a group's verdicts at the longest length say, the best one first."""
  lengths = findings.lengths(group)
  if not lengths:
    states = [f"{run.label} {run.state}" for run in findings.sweep.of(group)]
    return f"No run has finished ({listed(states or ['none was planned'])}).", ""
  rows = findings.at(group, lengths[-1])
  ranked = ranking(rows)
  if not ranked:
    return f"No run has a whole score at length {lengths[-1]}.", _others(findings, rows)
  if len(rows) == 1:
    return _best(findings, ranked), ""
  more = [_lead(findings, group, ranked), _others(findings, rows, ranked[0])]
  trained = findings.trained(group)
  if trained != lengths[-1]:
    more.append(_trained(findings, group, trained))
  return _best(findings, ranked), " ".join(filter(None, more))


def ranking(rows: list[Row]) -> list[Row]:
  """Returns the rows that hold every planned seed, best first."""
  whole = [
    row
    for row in rows
    if row.estimate.mean is not None and row.verdict not in ("diverged", "undefined")
  ]
  return sorted(
    whole, key=lambda r: r.estimate.mean if r.better == "lower" else -r.estimate.mean
  )


def _best(findings, ranked) -> str:
  top, baseline = ranked[0], findings.sweep.baseline
  tied = [row.label for row in ranked if row.estimate.mean == top.estimate.mean]
  if len(tied) > 1:
    return f"{where(top)} {listed(tied)} are level: {score(top)}."
  if len(findings.sweep.of(top.group)) == 1:
    return (
      f"{where(top)} {top.label}: {score(top)}. Nothing to compare it with is here."
    )
  text = f"{where(top)} {top.label} is best: {score(top)}"
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
  gap, p = statistics.paired(
    runs[top.label].values(*at), runs[following.label].values(*at)
  )
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
  ranked = ranking(findings.at(group, length))
  if not ranked:
    return ""
  top = ranked[0]
  level = [row.label for row in ranked if row.estimate.mean == top.estimate.mean]
  verb = "is best" if len(level) == 1 else "are level"
  return f"{where(top)} {listed(level)} {verb} ({score(top)})."


def score(row: Row) -> str:
  """Returns "2.740 bits per byte" or, for what is no unit, "accuracy 0.423"."""
  name, mean = measure_name(row.measure), number(row.estimate.mean)
  return f"{mean} {name}" if "_per_" in row.measure else f"{name} {mean}"


def where(row: Row) -> str:
  return (
    "At the trained length"
    if row.times == 1
    else f"At {multiple(row.times)} the trained length"
  )


def listed(labels: list[str]) -> str:
  """Returns "a, b and c", or the first few and how many more."""
  if len(labels) > SHOWN:
    return ", ".join(labels[:SHOWN]) + f" and {len(labels) - SHOWN} more"
  return " and ".join(filter(None, [", ".join(labels[:-1]), labels[-1]]))


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


METHOD = (
  "A seed draws a run's initial weights and its batches; a variant and the baseline are"
  " paired by seed. Every length is scored on the same target tokens: only the context"
  " before them grows.",
  "Intervals are 95% Student t intervals over seeds, one at a time. A verdict of better"
  " or worse needs p < 0.05 in a two-sided paired t test after Holm's correction over"
  " the variants compared at one length of one measure of one group; the interval"
  " beside it is not widened, so it can leave out zero where the verdict is “did not"
  " resolve”. With few seeds this rests on differences between seeds being roughly"
  " normal.",
  "A number without ± comes from one seed or is the same in every seed. One seed is"
  " never judged. Where all seeds give the very same difference a t test does not apply"
  " and the sign test judges, which needs six seeds to resolve anything.",
  "A run that lost a seed to divergence keeps the mean of its other seeds but is not"
  " judged by it: leaving the lost seed out would flatter it. A length that an encoding"
  " does not define is undefined, never clamped. The lead of the best over the next in"
  " the answer is one uncorrected paired t test.",
  "Parameters are counted in the parameter tree. FLOPs are what XLA counts for one"
  " training step of one seed before it optimizes, with dense attention and every layer"
  " written out. Peak memory is that of the compiled training of all seeds: arguments"
  " and temporary buffers. Tokens per second and seconds are those of this one run of"
  " each variant on this machine, not a paired benchmark.",
)


def budgets(findings: Findings) -> list[str]:
  """Says, group by group, what the runs share, what they do not, and by how much."""
  lines = []
  for group in findings.sweep.groups:
    runs = [run for run in findings.sweep.of(group) if run.config]
    keys = sorted({key for run in runs for key in run.config})
    differing = [k for k in keys if len({repr(r.config.get(k)) for r in runs}) > 1]
    finished = [run for run in findings.sweep.of(group) if run.result]
    text = f"{group}: {len(finished)} of {len(findings.sweep.of(group))} runs finished"
    if len(runs) > 1:
      text += (
        f"; all {len(keys)} settings are equal but {listed(differing or ['none'])}"
      )
    for name, key in (("parameters", "parameters"), ("FLOPs/token", "flops_per_token")):
      values = [run.fact(key) for run in finished if run.fact(key)]
      if values:
        text += f"; {name} {count(min(values))} to {count(max(values))}"
    lines.append(text + ".")
  return lines


def origins(findings: Findings) -> list[tuple[str, str]]:
  """Returns (what, values) pairs that say where the numbers come from."""
  facts: dict[str, dict[str, None]] = {}
  for run in findings.finished:
    for name in ("device", "commit"):
      facts.setdefault(name, {})[str(run.fact(name) or "not recorded")] = None
    for name, version in (run.fact("versions") or {}).items():
      facts.setdefault("versions", {})[f"{name} {version}"] = None
    for name, value in (run.fact("data") or {}).items():
      facts.setdefault(f"data of {run.group}: {name}", {})[str(value)] = None
  return [(name, ", ".join(values)) for name, values in facts.items()]


def count(value: float | None) -> str:
  """Returns 12,345 or 1.23e+09 for a number of things, – for an unknown one."""
  if not isinstance(value, int | float):
    return "–"
  return f"{value:,.0f}" if value < 1e8 else f"{value:.3g}"
