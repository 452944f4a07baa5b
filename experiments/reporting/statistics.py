"""Means over seeds with their intervals: Student's t, within a measure's bounds."""

import dataclasses
import math

import numpy as np
import numpy.typing as npt
from scipy import special

LEVEL = 0.95  # of every interval that is shown
# Scores are float32 numbers: a spread below this part of their size is rounding.
ROUNDING = 1e-6
Bounds = tuple[
  float | None, float | None
]  # least and largest value; None: there is none
UNBOUNDED: Bounds = (None, None)


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

  @property
  def skewed(self) -> bool:
    """Returns whether the interval was cut off: its middle is not the mean."""
    if self.mean is None or self.low is None or self.high is None:
      return False
    middle = (self.low + self.high) / 2
    return abs(middle - self.mean) > ROUNDING * max(self.high - self.low, ROUNDING)

  def within(self, interval: tuple[float, float], bounds: Bounds) -> "Estimate":
    """Returns the estimate with an interval, cut off at the measure's bounds.

    The true mean lies within the bounds, so that the interval holds it as often.
    """
    low, high = interval
    low = low if bounds[0] is None else max(low, bounds[0])
    high = high if bounds[1] is None else min(high, bounds[1])
    return dataclasses.replace(self, low=low, high=high)


NOTHING = Estimate(None, None, None, 0)


def lower_is_better(mean: float | None, better: str) -> float:
  """Returns the mean with the sign for which lower is better; infinity for None.

  better   "lower" or "higher"
  """
  if mean is None:
    return math.inf
  return mean if better == "lower" else -mean


def estimate(
  values: npt.ArrayLike, bounds: Bounds = UNBOUNDED, resolution: float = 0.0
) -> Estimate:
  """Returns the mean with its 95% t interval.

  values      one for each seed
  bounds      least and largest value that is possible: the interval ends there
  resolution  standard error of one score from its examples, below which no spread over
              seeds is believed; 0: unknown

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
  deviation = max(float(value_S.std(ddof=1)) if _spread(value_S) else 0.0, resolution)
  if not deviation:
    return Estimate(mean, None, None, count, "the same in every seed")
  error = deviation / math.sqrt(count)
  half = float(special.stdtrit(count - 1, (1 + LEVEL) / 2) * error)
  return Estimate(mean, None, None, count).within((mean - half, mean + half), bounds)


def _spread(values: np.ndarray) -> bool:
  return bool(np.ptp(values) > ROUNDING * np.abs(values).max())
