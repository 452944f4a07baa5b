"""Table of scored examples: how many of how many, and how sure they make a score."""

import math
from collections.abc import Sequence

import numpy as np

from experiments.reporting import crossed
from experiments.reporting.crossed import CrossedVariance
from experiments.reporting.findings import Findings
from experiments.reporting.loaded_run import LoadedRun
from experiments.reporting.report_table import Table
from experiments.reporting.text import listed, measure_name, multiple, number

SHARE = 1 / 3  # of the seeds' standard error: the most that a test set should add
HEADER = ("length", "scored", "of", "seeds", "test set", "test set / seeds")


def scored_table(findings: Findings, group: str) -> Table:
  """Returns examples and both standard errors of a difference, by scored length.

  Of the headline measure. Standard errors are root mean squares over the variants; in
  a group without the baseline, of their scores. Results that did not record their
  examples have no rows.
  """
  runs = [run for run in findings.sweep.of(group) if run.fact("targets")]
  rows: list[tuple[str, ...]] = []
  short: list[tuple[str, int]] = []
  for length in findings.lengths(group) if runs else ():
    variances = _variances(findings, group, length)
    seeds, test, ratio = _errors(variances)
    times = multiple(length / runs[0].fact("train_length"))
    rows.append(
      (
        f"{times} ({length})",
        *_counts(runs, length),
        *(number(x, 4) for x in (seeds, test)),
        number(ratio, 2),
      )
    )
    if ratio is not None and ratio > SHARE:
      short.append((times, _enough(variances, ratio)))
  subject = "a difference" if _pairs(findings, group) else "a score"
  measure = measure_name(next(iter(findings.measures(group)), ""))
  title = f"{group}: scored examples, and standard errors of {subject} ({measure})"
  notes = [*_notes(short), *_left_out(runs)] if rows else []
  return Table(f"scored_{group}", title, HEADER, tuple(rows), tuple(notes))


def needed(findings: Findings, group: str) -> int | None:
  """Returns the examples that would do where too few are scored; None: enough are."""
  if not any(run.fact("targets") for run in findings.sweep.of(group)):
    return None
  enough = []
  for length in findings.lengths(group):
    variances = _variances(findings, group, length)
    *_, ratio = _errors(variances)
    if ratio is not None and ratio > SHARE:
      enough.append(_enough(variances, ratio))
  return max(enough, default=None)


def _errors(variances: Sequence[CrossedVariance]) -> tuple[float | None, ...]:
  """Returns the standard errors of seeds and of examples, and their ratio."""
  seeds, test = _error(variances, "seeds"), _error(variances, "examples")
  return seeds, test, test / seeds if seeds and test is not None else None


def _variances(findings: Findings, group: str, length: int) -> list[CrossedVariance]:
  runs = [run for run in findings.sweep.of(group) if run.result]
  measure = next(iter(findings.measures(group)))
  if pairs := _pairs(findings, group):
    return [*crossed.of_pairs(runs, pairs, length, measure, "mean").values()]
  scores = [[*crossed.of_run(run, length, measure, "mean").values()] for run in runs]
  found = [crossed.crossed(np.stack(each)) for each in scores if each]
  return [variance for variance in found if variance]


def _pairs(findings: Findings, group: str) -> list[tuple[str, str]]:
  """Returns each variant with the baseline; [] in a group without it."""
  baseline = findings.sweep.baseline
  labels = [run.label for run in findings.sweep.of(group)]
  if baseline is None or baseline not in labels:
    return []
  return [(label, baseline) for label in labels if label != baseline]


def _error(variances: Sequence[CrossedVariance], source: str) -> float | None:
  values = [x for v in variances if (x := getattr(v, source)) is not None]
  return math.sqrt(sum(values) / len(values)) if values else None


def _enough(variances: Sequence[CrossedVariance], ratio: float) -> int:
  """Returns the number of examples at which the ratio would be the aim."""
  count = max(variance.count_E for variance in variances)
  return math.ceil(count * (ratio / SHARE) ** 2)


def _counts(runs: Sequence[LoadedRun], length: int) -> tuple[str, str]:
  """Returns the scored and the available examples as text."""
  targets = [(run.fact("targets") or {}).get(str(length)) or {} for run in runs]
  scored = sorted({x["examples"] for x in targets if x})
  available = {x["available"] for x in targets if "available" in x}
  of = [f"{n:,}" for n in sorted(x for x in available if isinstance(x, int))]
  of += ["unlimited"] if None in available else []
  return " or ".join(f"{n:,}" for n in scored) or "–", " or ".join(of) or "–"


def _left_out(runs: Sequence[LoadedRun]) -> list[str]:
  """Returns sentences on examples that the task left out of scoring."""
  facts = [(run.fact("data") or {}).get("left_out") for run in runs]
  # Tasks with examples of their own record counts of what was left out instead.
  return [f"{text}." for text in dict.fromkeys(x for x in facts if isinstance(x, str))]


def _notes(short: list[tuple[str, int]]) -> list[str]:
  """Returns a sentence on the lengths with too few examples."""
  if not short:
    return []
  where = listed([times for times, _ in short])
  most = max(count for _, count in short)
  return [
    f"At {where} the test set's standard error is more than a third of the seeds':"
    " other examples would move the differences, and more seeds do not help. About"
    f" {most:,} examples (evaluate.examples), or all there are, would bring it to a"
    " third."
  ]
