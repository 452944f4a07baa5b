"""Statistics over seeds: intervals, paired tests, Holm's correction.

Student's t interval and paired t test; Holm, 1979,
https://www.jstor.org/stable/4615733.
"""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from scipy import stats

LEVEL = 0.95  # of every interval that is shown
# Scores are float32 numbers: a spread below this part of their size is rounding.
ROUNDING = 1e-6


@dataclasses.dataclass(frozen=True)
class Estimate:
  """A mean over seeds with its 95% t interval.

  mean        None: without values, or where one is not finite
  low, high   ends of the interval; both are None where there is none
  count       seeds with a value
  note        why there is no interval

  >>> three = estimate([0.80, 0.82, 0.84])
  >>> round(three.mean, 3), round(three.low, 3), round(three.high, 3), three.count
  (0.82, 0.77, 0.87, 3)
  >>> estimate([0.8]).note
  'one seed'
  """

  mean: float | None
  low: float | None
  high: float | None
  count: int
  note: str = ""

  @property
  def interval(self) -> tuple[float, float] | None:
    """Returns (low, high), or None."""
    return None if self.low is None or self.high is None else (self.low, self.high)

  @property
  def half(self) -> float | None:
    """Returns half the width of the interval, or None."""
    return None if self.interval is None else (self.interval[1] - self.interval[0]) / 2


NOTHING = Estimate(None, None, None, 0)


def lower_is_better(mean: float | None, better: str) -> float:
  """Returns the mean with the sign for which lower is better; infinity for None.

  better   "lower" or "higher"
  """
  if mean is None:
    return math.inf
  return mean if better == "lower" else -mean


def estimate(values: npt.ArrayLike, scale: float | None = None) -> Estimate:
  """Returns the mean with its 95% t interval.

  values   one for each seed
  scale    size of a score, below whose rounding a spread is none; None: of the values

  Without values, or where one is not finite, there is no mean.
  """
  value_S = np.asarray(values, np.float64)
  count = int(value_S.size)
  if not count:
    return NOTHING
  if not np.isfinite(value_S).all():
    return Estimate(None, None, None, count, "a value is not finite")
  mean = float(value_S.mean())
  if count == 1:
    return Estimate(mean, None, None, 1, "one seed")
  if not _spread(value_S, scale):
    return Estimate(mean, None, None, count, "the same in every seed")
  error = value_S.std(ddof=1) / math.sqrt(count)
  half = float(stats.t.ppf((1 + LEVEL) / 2, count - 1) * error)
  return Estimate(mean, mean - half, mean + half, count)


def paired(
  variant: Mapping[int, float], baseline: Mapping[int, float]
) -> tuple[Estimate, float | None]:
  """Returns variant minus baseline over their common seeds, and its two-sided p value.

  variant, baseline   {seed: value}

  Where every seed gives one and the same difference, a t test would divide by zero and
  call anything significant; the sign test still holds there: p = 2^(1 - seeds).
  """
  seeds = sorted(variant.keys() & baseline.keys())
  ours = np.array([variant[seed] for seed in seeds], np.float64)
  theirs = np.array([baseline[seed] for seed in seeds], np.float64)
  if not seeds:
    return NOTHING, None
  scale = float(np.abs([ours, theirs]).max())
  difference = estimate(ours - theirs, scale)
  if difference.count == 1 or difference.mean is None:
    return difference, None
  if difference.half is not None:
    error = difference.half / stats.t.ppf((1 + LEVEL) / 2, difference.count - 1)
    p = 2 * stats.t.sf(abs(difference.mean) / error, difference.count - 1)
    return difference, float(p)
  same = abs(difference.mean) <= ROUNDING * scale
  return difference, 1.0 if same else 2.0 ** (1 - difference.count)


def holm(p_values: Mapping[str, float | None]) -> dict[str, float | None]:
  """Returns p values after Holm's correction; None and NaN are no tests, and None."""
  tested = sorted(
    (p, name) for name, p in p_values.items() if p is not None and not math.isnan(p)
  )
  corrected: dict[str, float | None] = dict.fromkeys(p_values)
  floor = 0.0
  for rank, (p, name) in enumerate(tested):
    floor = max(floor, min(1.0, (len(tested) - rank) * p))
    corrected[name] = floor
  return corrected


def _spread(values: np.ndarray, scale: float | None) -> bool:
  scale = float(np.abs(values).max()) if scale is None else scale
  return bool(np.ptp(values) > ROUNDING * scale)
