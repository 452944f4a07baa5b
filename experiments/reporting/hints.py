"""Values behind the cells of a table, by seed, shown on hover and on focus."""

from collections.abc import Mapping, Sequence

from experiments.reporting.findings import Comparison, Findings
from experiments.reporting.text import number

Hints = dict[tuple[int, int], str]  # {(line, column): text}


def hints(
  findings: Findings, columns: Sequence[Sequence[Comparison]], cells: int = 1
) -> Hints:
  """Returns the hints of a table with a line for each variant.

  columns   comparisons of each length, a variant a line
  cells     of a length: 1, the mean; 3, mean, difference from the baseline and verdict
  """
  found: Hints = {}
  for n, column in enumerate(columns):
    base = next((c for c in column if c.label == findings.sweep.baseline), None)
    against = values(findings, base) if base else {}
    for line, comparison in enumerate(column):
      ours = values(findings, comparison)
      texts = [by_seed(ours), _differences(ours, against), _test(comparison)]
      if comparison is base:
        texts[1:] = ["", ""]
      for k, text in enumerate(texts[:cells]):
        if text:
          found[line, 1 + n * cells + k] = text
  return found


def values(findings: Findings, comparison: Comparison) -> dict[int, float]:
  """Returns {seed: score} of a comparison's variant."""
  for run in findings.sweep.of(comparison.group):
    if run.label == comparison.label:
      return run.values(comparison.length, comparison.measure, comparison.part)
  return {}


def by_seed(scores: Mapping[int, float], sign: str = "") -> str:
  """Returns "seed 0 3.135, seed 1 3.145", "" without scores."""
  return ", ".join(
    f"seed {seed} {sign if value > 0 else ''}{number(value)}"
    for seed, value in sorted(scores.items())
  )


def _differences(ours: Mapping[int, float], against: Mapping[int, float]) -> str:
  both = {seed: ours[seed] - against[seed] for seed in ours if seed in against}
  return by_seed(both, "+")


def _test(comparison: Comparison) -> str:
  """Returns p values and the reason of a verdict."""
  tested = comparison.p is not None and comparison.p_holm is not None
  p = f"p {comparison.p_holm:.3g} corrected, {comparison.p:.3g} alone" if tested else ""
  return "; ".join(filter(None, [p, comparison.reason]))
