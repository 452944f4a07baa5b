"""Tables of a ladder of sizes: each variant's curve and its prediction, and as CSV."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from experiments.reporting.ladder_curves import ALPHA, FURTHER, Fits
from experiments.reporting.picture import Numbers
from experiments.reporting.report_table import Table
from experiments.reporting.text import count, number

OFFSET, EXPONENT = np.array([1.0, 0.0, 0.0]), np.array([0.0, 0.0, 1.0])


def ladder_table(fits: Fits) -> Table:
  """Returns each variant's curve, its prediction and the difference from the baseline.

  Intervals are of 95% each.
  """
  rows: list[tuple[str, ...]] = []
  for label in [*fits.ranked, *fits.reasons]:
    if label in fits.reasons:
      rows.append((label, fits.reasons[label], "–", "–", "–", "–"))
      continue
    law = fits.laws[label]
    fall = f"(C / {law.scale:.2e})^-{law.exponent:.3f}"
    half = law.half(law.slopes(fits.target))
    rows.append(
      (
        label,
        f"{law.offset:.3g} + {law.factor:.3g} {fall}",
        _with(law.exponent, law.half(EXPONENT)),
        _with(law.offset, law.half(OFFSET)),
        _with(law.predict(fits.target), half),
        _gap(fits, label),
      )
    )
  header = (
    *("variant", f"{fits.measure} at C FLOPs", "exponent", "offset"),
    *(f"at {FURTHER:g}x", f"{FURTHER:g}x minus {fits.baseline}"),
  )
  title = f"{fits.name}: power laws of the ladder, ± 95% interval"
  notes = (
    f"{FURTHER:g}x: {FURTHER:g} times the largest budget, {count(fits.target)} FLOPs in"
    " training. A prediction holds if the power law does there.",
  )
  return Table(f"ladder_{fits.name}", title, header, tuple(rows), notes, folds=(0, 1))


def _with(value: float, half: float) -> str:
  return f"{number(value)} ± {number(half)}"


def _gap(fits: Fits, label: str) -> str:
  if label == fits.baseline:
    return "baseline"
  gap = _difference(fits, label)
  return _with(*gap) if gap else "–"


def _difference(fits: Fits, label: str) -> tuple[float, float] | None:
  """Returns the difference from the baseline, and half its interval."""
  if fits.baseline is None or fits.baseline not in fits.laws or label == fits.baseline:
    return None
  return fits.gap(label, fits.baseline, 1 - ALPHA)


def to_csv(ladders: Sequence[Fits]) -> str:
  """Returns a line for each ladder and variant, with all digits; "" without ladders.

  Columns `_half` are half the width of a 95% interval; loss(C) = offset + factor
  (C / scale)^-exponent.
  """
  names = "ladder variant measure offset offset_half factor exponent exponent_half"
  names += " scale flops predicted predicted_half baseline difference difference_half"
  rows = [row for fits in ladders for row in _rows(fits)]
  return Numbers([*names.split(), "reason"], rows).to_csv() if rows else ""


def _rows(fits: Fits) -> Iterator[tuple[Any, ...]]:
  for label in fits.ranked:
    law = fits.laws[label]
    yield (
      *(fits.name, label, fits.measure, law.offset, law.half(OFFSET), law.factor),
      *(law.exponent, law.half(EXPONENT), law.scale, fits.target),
      *(law.predict(fits.target), law.half(law.slopes(fits.target)), fits.baseline),
      *(_difference(fits, label) or (None, None)),
      "",
    )
  for label, reason in fits.reasons.items():
    yield (fits.name, label, fits.measure, *[None] * 12, reason)
