"""Seeds that an unresolved difference would need, with the examples that there are."""

import bisect
import dataclasses
import math

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
  examples    whether the scored examples are too few for any number of seeds

  >>> print(MoreSeeds(4, 2, None))
  about 4 more seeds, 2 to over 500
  """

  point: int | None
  low: int | None
  high: int | None
  examples: bool = False

  def __str__(self) -> str:
    def count(value):
      return f"over {MOST}" if value is None else str(value)

    if self.examples:
      return "more examples are needed, not seeds"
    if self.low is None:
      return f"over {MOST} more seeds"
    if self.point is None:
      return f"over {MOST} more seeds, at least {self.low}"
    ends = f"{count(self.low)} to {count(self.high)}"
    plural = "" if self.point == 1 else "s"
    return f"about {count(self.point)} more seed{plural}, {ends}"


def more_seeds(
  contrast: Contrast, threshold: float, margin: float | None = None
) -> MoreSeeds | None:
  """Returns the seeds to add to a comparison that is not resolved; None: unknown.

  contrast    difference with its standard error; more seeds lower that over seeds, and
              not what the scored examples add
  threshold   p value that resolves, after the correction for other comparisons
  margin      difference up to which two variants are equivalent; None: there is none

  >>> near = Contrast(mean=0.1, error=0.05, df=4.0, count=3)
  >>> print(more_seeds(near, threshold=0.01))
  about 8 more seeds, 2 to 71
  """
  over_seeds = contrast.error
  if contrast.mean is None or not contrast.total[0] or contrast.count < 2:
    return None
  if not over_seeds:
    return MoreSeeds(None, None, None, examples=True)
  chi2 = special.chdtri(contrast.df, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
  spreads = np.sqrt([1.0, *(contrast.df / chi2)])
  size = abs(contrast.mean)

  def resolves(error: float, df: float) -> bool:
    """Returns whether four of five repetitions resolve, with this error over seeds."""
    if contrast.test_set:
      error, df = contrast.test_set.added(error, df)
    chance = special.stdtrit(df, POWER)
    if (chance - special.stdtrit(df, threshold / 2)) * error <= size:
      return True
    equal = (chance - special.stdtrit(df, threshold)) * error
    return margin is not None and equal <= margin - size

  def needed(spread: float) -> int | None:
    def enough(more: int) -> bool:
      seeds = contrast.count + more
      error = spread * over_seeds * math.sqrt(contrast.count / seeds)
      return resolves(error, contrast.df * (seeds - 1) / (contrast.count - 1))

    steps = range(1, MOST + 1)  # the error falls with each
    more = bisect.bisect_left(steps, True, key=enough)
    return steps[more] if more < MOST else None

  never = size > 0 and not resolves(0.0, 1.0)
  point, low, high = map(needed, spreads)
  return MoreSeeds(point, low, high, examples=never)
