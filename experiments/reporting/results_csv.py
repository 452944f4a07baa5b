"""Content of results.csv: every score with its difference and verdict."""

import csv
import io

from experiments.reporting.findings import Findings
from transformer_jax.untrusted import cell


def to_csv(findings: Findings) -> str:
  """Returns one line per group, variant, length, measure and part.

  Primary comparisons with other runs than the baseline follow, with that run under
  `baseline`.
  """
  out = io.StringIO()
  writer = csv.writer(out, lineterminator="\n")
  writer.writerow(
    "group variant length times_trained measure better part seeds planned_seeds mean"
    " mean_low mean_high baseline difference difference_low difference_high p p_holm"
    " verdict reason p_equivalent more_seeds more_seeds_low more_seeds_high resolution"
    " chance examples_error".split()
  )
  for c in (*findings.comparisons, *findings.pairs):
    more = c.more
    values = (
      [c.group, c.label, c.length, c.times, c.measure, c.better, c.part]
      + [c.estimate.count, c.planned]
      + [c.estimate.mean, c.estimate.low, c.estimate.high]
      + [c.against]
      + [c.difference.mean, c.difference.low, c.difference.high]
      + [c.p, c.p_holm, c.verdict, c.reason, c.p_equivalent]
      + ([more.point, more.low, more.high] if more else [None] * 3)
      + [c.resolution or None, c.chance, c.examples_error]
    )
    writer.writerow(map(cell, values))
  return out.getvalue()
