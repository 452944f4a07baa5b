"""Seeds that an unresolved difference would need."""

import dataclasses

import numpy as np
from scipy import special

from experiments.reporting.moderated import Contrast
from experiments.reporting.statistics import LEVEL

POWER = 0.8  # of the repetitions that resolve
MOST = 500  # more seeds than that are not searched


@dataclasses.dataclass(frozen=True)
class MoreSeeds:
  """Seeds to add until a comparison resolves in four of five repetitions.

  point       if difference and spread are those measured; None: more than MOST
  low, high   if the spread is at the ends of its 95% interval; None likewise

  >>> print(MoreSeeds(4, 2, None))
  about 4 more seeds, 2 to over 500
  """

  point: int | None
  low: int | None
  high: int | None

  def __str__(self) -> str:
    def count(value):
      return f"over {MOST}" if value is None else str(value)

    if self.low is None:
      return f"over {MOST} more seeds"
    ends = f"{count(self.low)} to {count(self.high)}"
    plural = "" if self.point == 1 else "s"
    return f"about {count(self.point)} more seed{plural}, {ends}"


def more_seeds(
  contrast: Contrast, threshold: float, margin: float | None = None
) -> MoreSeeds | None:
  """Returns the seeds to add to a comparison that is not resolved; None: unknown.

  contrast    difference with its standard error
  threshold   p value that resolves, after the correction for other comparisons
  margin      difference up to which two variants are equivalent; None: there is none

  >>> near = Contrast(mean=0.1, error=0.05, df=4.0, count=3)
  >>> print(more_seeds(near, threshold=0.01))
  about 8 more seeds, 2 to 71
  """
  if contrast.mean is None or not contrast.error or contrast.count < 2:
    return None
  chi2 = special.chdtri(contrast.df, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
  spreads = np.sqrt([1.0, *(contrast.df / chi2)])
  seeds_N = contrast.count + np.arange(1, MOST + 1)
  df_N = contrast.df * (seeds_N - 1) / (contrast.count - 1)
  error_N = contrast.error * np.sqrt(contrast.count / seeds_N)
  chance_N = special.stdtrit(df_N, POWER)
  size = abs(contrast.mean)
  differs_N = (chance_N - special.stdtrit(df_N, threshold / 2)) * error_N
  equal_N = (chance_N - special.stdtrit(df_N, threshold)) * error_N

  def needed(spread: float) -> int | None:
    enough_N = spread * differs_N <= size
    if margin is not None:
      enough_N |= spread * equal_N <= margin - size
    return 1 + int(np.argmax(enough_N)) if enough_N.any() else None

  return MoreSeeds(*map(needed, spreads))
