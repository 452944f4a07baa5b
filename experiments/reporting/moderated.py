"""Differences within one column of scores, with moderated standard errors.

A column is one measure at one length of one group, and a two-way layout: variants by
seeds, with seeds as blocks. Each variant's variance is that of its residuals, moderated
towards the column's pooled variance with a fixed weight. docs/statistics.md explains
and calibrates the method; family.py corrects the p values of a whole report.

Smyth, 2004, https://doi.org/10.2202/1544-6115.1027 (moderated variances);
Satterthwaite, 1946, https://doi.org/10.2307/3002019 (degrees of freedom of a sum).
"""

import dataclasses
import functools
from collections.abc import Iterable, Mapping

import numpy as np
from scipy import special  # its functions are those of stats, without their cost

from experiments.reporting.crossed import CrossedVariance
from experiments.reporting.family import Pair
from experiments.reporting.statistics import LEVEL, ROUNDING

# Degrees of freedom that the column's pooled variance counts in a variant's variance.
# The largest whose errors stay at 5% with 10-fold unequal spreads: docs/statistics.md.
PRIOR = 0.8


@dataclasses.dataclass(frozen=True)
class Contrast:
  """Difference of one variant from another.

  mean      over the seeds that both have; None: there is none
  error     standard error of the mean over seeds; None: not estimable
  df        degrees of freedom of the error
  count     seeds that both have
  test_set  variances of the same difference over the scored examples; None: unknown

  >>> scores = {"none": {0: 1.0, 1: 1.2}, "rope": {0: 0.9, 1: 1.1}}
  >>> contrast = compare(scores, [("rope", "none")])["rope", "none"]
  >>> round(contrast.mean, 2), contrast.count
  (-0.1, 2)
  """

  mean: float | None
  error: float | None
  df: float
  count: int
  test_set: CrossedVariance | None = None

  @property
  def total(self) -> tuple[float | None, float]:
    """Returns the standard error over seeds and examples, and its degrees of freedom.

    Over seeds alone where the scores of the examples are unknown.
    """
    if self.error is None or self.test_set is None:
      return self.error, self.df
    return self.test_set.added(self.error, self.df)

  @property
  def p(self) -> float | None:
    """Returns the two-sided p value of this difference alone; None: not tested.

    Where nothing varies and the scored examples are unknown it is that of a sign test.
    """
    error, df = self.total
    if self.mean is None or error is None:
      return None
    if not error:
      return 2.0 ** (1 - self.count) if self.mean else 1.0
    return float(2 * special.stdtr(df, -abs(self.mean) / error))

  def p_equivalent(self, margin: float | None) -> float | None:
    """Returns the larger p value of two one-sided tests against -margin and margin."""
    error, df = self.total
    if margin is None or self.mean is None or not error:
      return None
    return float(special.stdtr(df, -(margin - abs(self.mean)) / error))

  @property
  def interval(self) -> tuple[float, float] | None:
    """Returns the 95% interval of this difference alone; None: not estimable."""
    error, df = self.total
    if self.mean is None or not error:
      return None
    half = float(special.stdtrit(df, (1 + LEVEL) / 2)) * error
    return self.mean - half, self.mean + half


@dataclasses.dataclass(frozen=True)
class Contrasts:
  """Arrays of differences, over columns and pairs of variants.

  mean   NaN where the two share no seed
  error  standard error of the mean, NaN where no variance is estimable
  df     degrees of freedom of the error
  count  shared seeds

  >>> found = contrasts(np.array([[1.0, 1.2, 1.1], [0.8, 1.1, 0.9]]))
  >>> found.mean.round(2), found.count
  (array([-0.17]), array([3]))
  """

  mean: np.ndarray
  error: np.ndarray
  df: np.ndarray
  count: np.ndarray

  def p_values(self) -> np.ndarray:
    """Returns two-sided p values; NaN: not tested."""
    with np.errstate(divide="ignore", invalid="ignore"):
      return 2 * special.stdtr(self.df, -np.abs(self.mean) / self.error)


def compare(
  scores: Mapping[str, Mapping[int, float]],
  pairs: Iterable[Pair],
  resolution: float = 0.0,
  prior: float = PRIOR,
) -> dict[Pair, Contrast]:
  """Returns the differences of pairs of variants of one column.

  scores      {variant: {seed: score}}; a seed that is lost is missing or not finite
  pairs       of variants: the first minus the second
  resolution  standard error that scoring a finite set of examples gives one score: no
              variant is taken to vary less. 0: unknown
  prior       weight of the pooled variance, in degrees of freedom

  >>> none, rope = {0: 3.15, 1: 3.13, 2: 3.16}, {0: 2.66, 1: 2.65, 2: 2.67}
  >>> pair = "rope", "none"
  >>> found = compare({"none": none, "rope": rope}, [pair])[pair]
  >>> round(found.mean, 2), found.p < 0.01, found.count
  (-0.49, True, 3)
  """
  pairs = list(pairs)
  if not pairs:
    return {}
  places: dict[str | None, int] = {label: n for n, label in enumerate(scores)}
  seeds = sorted({seed for values in scores.values() for seed in values})
  scores_VS = np.array(
    [[values.get(seed, np.nan) for seed in seeds] for values in scores.values()],
    np.float64,
  ).reshape(len(scores), len(seeds))
  at = np.array([[places[label] for label in pair] for pair in pairs])
  found = contrasts(scores_VS, prior, resolution, at)
  size = float(np.abs(np.nan_to_num(scores_VS)).max(initial=0))
  return {pair: _contrast(found, n, size) for n, pair in enumerate(pairs)}


def _contrast(found: Contrasts, n: int, size: float) -> Contrast:
  """Returns the n-th contrast; size is that of the scores, for their rounding."""
  mean, error, df = (float(x[n]) for x in (found.mean, found.error, found.df))
  count = int(found.count[n])
  if not count:
    return Contrast(None, None, 0.0, 0)
  if count == 1 or not np.isfinite(error):
    return Contrast(mean, None, 0.0, count)
  if abs(mean) <= ROUNDING * size:  # of the scores: no difference
    mean = 0.0
  return Contrast(mean, error, df, count)


def contrasts(
  scores: np.ndarray,
  prior: float = PRIOR,
  resolution: float = 0.0,
  pairs: np.ndarray | None = None,
) -> Contrasts:
  """Returns differences of variants, with moderated standard errors.

  scores      (..., variants, seeds), NaN is lost
  prior       weight of the pooled variance, in degrees of freedom
  resolution  standard error of one score from its examples
  pairs       (pairs, 2) places of variants, the first minus the second; None: each
              variant minus the first one
  """
  variance, df, pooled, total = variances(scores)
  floored = np.maximum(variance, resolution**2)
  moderated = (prior * pooled[..., None] + df * floored) / (prior + df)
  moderated = np.maximum(moderated, resolution**2)
  if pairs is None:
    pairs = np.array([[n, 0] for n in range(1, scores.shape[-2])])
  left, right = pairs[:, 0], pairs[:, 1]
  first, second = moderated[..., left], moderated[..., right]
  weight = df + prior
  with np.errstate(divide="ignore", invalid="ignore"):
    joint = (first + second) ** 2 / (
      first**2 / weight[..., left] + second**2 / weight[..., right]
    )
  # The pooled variance is itself an estimate: no more than its own degrees of freedom.
  joint = np.minimum(joint, total[..., None])
  difference = scores[..., left, :] - scores[..., right, :]
  count = np.isfinite(difference).sum(-1)
  sums = np.where(np.isfinite(difference), difference, 0).sum(-1)
  with np.errstate(divide="ignore", invalid="ignore"):
    return Contrasts(sums / count, np.sqrt((first + second) / count), joint, count)


def variances(
  scores: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
  """Returns each variant's variance over seeds, without what the seeds share.

  scores   (..., variants, seeds), NaN is lost

  Returns variances and their degrees of freedom (..., variants), then the pooled
  variance and its degrees of freedom (...). Residuals are those of the additive model
  variant + seed by least squares. A variant that is equal in every seed (solved, or at
  chance) says nothing about the noise of others: its variance is 0 and not pooled.
  """
  held = np.isfinite(scores)
  filled = np.where(held, scores, 0.0)
  high = np.where(held, scores, -np.inf).max(-1)
  low = np.where(held, scores, np.inf).min(-1)
  size = np.abs(filled).max((-1, -2))
  varies = (high - low) > ROUNDING * size[..., None]
  squares, expected = residual_squares(filled, held & varies[..., None])
  # A variant that alone varies shares nothing with others: its own deviations count.
  alone = varies & (varies.sum(-1, keepdims=True) == 1)
  own_squares, own_df = deviations(filled, held)
  squares = np.where(alone, own_squares, squares)
  expected = np.where(alone, own_df, expected)
  with np.errstate(divide="ignore", invalid="ignore"):
    variance = np.where(expected > 1e-9, squares / expected, 0.0)
    total = expected.sum(-1)
    pooled = squares.sum(-1) / np.where(total > 1e-9, total, np.nan)
  # Where nothing varies, the degrees of freedom are those of the variants' own means.
  constant = ~varies.any(-1) & (own_df.max(-1) > 0)
  pooled = np.where(constant, 0.0, pooled)
  total = np.where(constant, own_df.sum(-1), total)
  return variance, own_df, pooled, total


def deviations(filled: np.ndarray, held: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns each variant's sum of squares around its own mean, and its df.

  filled   (..., variants, seeds) with any finite number where nothing is held
  held     the cells that have a score
  """
  count = held.sum(-1)
  mean = np.where(held, filled, 0).sum(-1) / np.maximum(count, 1)
  squares = np.where(held, filled - mean[..., None], 0) ** 2
  return squares.sum(-1), np.maximum(count - 1.0, 0)


def residual_squares(
  filled: np.ndarray, held: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Returns sums of squared residuals of variants, and what they sum to at variance 1.

  filled   (..., variants, seeds) with any finite number where nothing is held
  held     the cells that take part
  """
  inverse = layout_inverse(held)
  variants = held.shape[-2]
  data = np.where(held, filled, 0.0)
  right = np.concatenate([data.sum(-1), data.sum(-2)], -1)
  effects = np.einsum("...ij,...j->...i", inverse, right)
  fitted = effects[..., :variants, None] + effects[..., None, variants:]
  diagonal = np.diagonal(inverse, axis1=-2, axis2=-1)
  leverage = diagonal[..., :variants, None] + diagonal[..., None, variants:]
  leverage = leverage + 2 * inverse[..., :variants, variants:]
  squares = np.where(held, data - fitted, 0.0) ** 2
  return squares.sum(-1), np.where(held, 1 - leverage, 0.0).sum(-1)


def layout_inverse(held: np.ndarray) -> np.ndarray:
  """Returns the pseudo-inverse of X'X of the model variant + seed.

  held   (..., variants, seeds): the cells that have a score
  """
  layout = held.shape[-2:]
  each = held.reshape(-1, *layout)
  found = [_inverse(one.astype(bool).tobytes(), layout) for one in each]
  return np.stack(found).reshape(*held.shape[:-2], *found[0].shape)


@functools.lru_cache(maxsize=8)  # the columns of a report, and many reports, have few
def _inverse(held: bytes, layout: tuple[int, int]) -> np.ndarray:
  """Returns the pseudo-inverse of one layout, (variants, seeds) as bytes of bool."""
  weight = np.frombuffer(held, bool).reshape(layout).astype(np.float64)
  variants, seeds = layout
  normal = np.zeros((variants + seeds, variants + seeds))
  v, s = np.arange(variants), variants + np.arange(seeds)
  normal[v, v], normal[s, s] = weight.sum(-1), weight.sum(-2)
  normal[:variants, variants:] = weight
  normal[variants:, :variants] = weight.T
  inverse = np.linalg.pinv(normal, hermitian=True)
  inverse.flags.writeable = False
  return inverse
