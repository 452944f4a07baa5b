"""Comparisons of a whole report with one family-wise error: moderated t, then Holm.

Every variant of every column is compared with the column's baseline. A column is one
measure at one length of one group, and a two-way layout: variants by seeds, with seeds
as blocks. Each variant's variance is that of its residuals, moderated towards the
column's pooled variance with a fixed weight; Holm's correction then runs over all
comparisons of all columns. docs/statistics.md explains and calibrates the method.

Smyth, 2004, https://doi.org/10.2202/1544-6115.1027 (moderated variances);
Satterthwaite, 1946, https://doi.org/10.2307/3002019 (degrees of freedom of a sum).
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
from scipy import stats

from experiments.reporting.statistics import LEVEL, ROUNDING, holm

# Degrees of freedom that the column's pooled variance counts in a variant's variance.
# The largest whose errors stay at 5% with 10-fold unequal spreads: docs/statistics.md.
PRIOR = 0.8


@dataclasses.dataclass(frozen=True)
class Column:
  """Scores of one measure at one length of one group.

  scores      {variant: {seed: score}}; a seed that is lost is missing or not finite
  baseline    the variant that all others are compared with
  resolution  standard error that scoring a finite set of examples gives one score: no
              variant is taken to vary less. 0: unknown

  >>> column = Column({"none": {0: 1.0}, "rope": {0: 0.9}}, "none", resolution=0.01)
  >>> sorted(column.scores)
  ['none', 'rope']
  """

  scores: Mapping[str, Mapping[int, float]]
  baseline: str
  resolution: float = 0.0


@dataclasses.dataclass(frozen=True)
class Contrast:
  """Difference of a variant from the baseline.

  mean        variant minus baseline over the seeds that both have; None: there is none
  low, high   ends of the 95% interval of this difference alone; None: not estimable
  p           two-sided p value of this difference alone; None: not tested
  p_adjusted  the same after Holm's correction over the whole family
  df          degrees of freedom of the difference's standard error
  count       seeds that variant and baseline share

  >>> scores = {"none": {0: 1.0, 1: 1.2}, "rope": {0: 0.9, 1: 1.1}}
  >>> contrast = compare_family({"text": Column(scores, "none")})["text"]["rope"]
  >>> round(contrast.mean, 2), contrast.count
  (-0.1, 2)
  """

  mean: float | None
  low: float | None
  high: float | None
  p: float | None
  p_adjusted: float | None
  df: float
  count: int


@dataclasses.dataclass(frozen=True)
class Contrasts:
  """Arrays of differences from the baseline, over columns and variants but the first.

  mean   variant minus baseline, NaN where they share no seed
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
      return 2 * stats.t.sf(np.abs(self.mean) / self.error, self.df)


def compare_family(
  columns: Mapping[str, Column], prior: float = PRIOR
) -> dict[str, dict[str, Contrast]]:
  """Compares all variants of all columns with their baselines, at 5% for all together.

  columns   {name: scores}: the primary comparisons of the whole report
  prior     weight of the pooled variance, in degrees of freedom

  Returns {name: {variant: contrast}} without the baselines.

  >>> none, rope = {0: 3.15, 1: 3.13, 2: 3.16}, {0: 2.66, 1: 2.65, 2: 2.67}
  >>> scores = {"none": none, "rope": rope}
  >>> found = compare_family({"text 1x": Column(scores, "none")})["text 1x"]["rope"]
  >>> round(found.mean, 2), found.p_adjusted < 0.01, found.count
  (-0.49, True, 3)
  """
  single = {name: _compare(column, prior) for name, column in columns.items()}
  p_values = {
    f"{name}\0{label}": contrast.p
    for name, compared in single.items()
    for label, contrast in compared.items()
  }
  adjusted = holm(p_values)
  return {
    name: {
      label: dataclasses.replace(contrast, p_adjusted=adjusted[f"{name}\0{label}"])
      for label, contrast in compared.items()
    }
    for name, compared in single.items()
  }


def _compare(column: Column, prior: float) -> dict[str, Contrast]:
  """Returns the contrasts of one column, before the correction."""
  if column.baseline not in column.scores:
    raise ValueError(f"the baseline {column.baseline!r} is none of the variants")
  labels = [column.baseline, *(x for x in column.scores if x != column.baseline)]
  seeds = sorted({seed for values in column.scores.values() for seed in values})
  scores_VS = np.array(
    [[column.scores[label].get(seed, np.nan) for seed in seeds] for label in labels],
    np.float64,
  )
  found = contrasts(scores_VS, prior, column.resolution)
  p_values = found.p_values()
  return {label: _contrast(found, p_values, n) for n, label in enumerate(labels[1:])}


def _contrast(found: Contrasts, p_values: np.ndarray, n: int) -> Contrast:
  mean, error, df = (float(x[n]) for x in (found.mean, found.error, found.df))
  count = int(found.count[n])
  if not count:
    return Contrast(None, None, None, None, None, 0.0, 0)
  if not np.isfinite(error):
    return Contrast(mean, None, None, None, None, 0.0, count)
  if not error:  # nothing varies, and the examples are unknown: a sign test
    p = 2.0 ** (1 - count) if mean else 1.0
    return Contrast(mean, None, None, p, None, df, count)
  half = float(stats.t.ppf((1 + LEVEL) / 2, df)) * error
  return Contrast(mean, mean - half, mean + half, float(p_values[n]), None, df, count)


def contrasts(
  scores: np.ndarray, prior: float = PRIOR, resolution: float = 0.0
) -> Contrasts:
  """Returns each variant minus the first, with moderated standard errors.

  scores      (..., variants, seeds); the first variant is the baseline, NaN is lost
  prior       weight of the pooled variance, in degrees of freedom
  resolution  standard error of one score from its examples
  """
  variance, df, pooled, total = variances(scores)
  floored = np.maximum(variance, resolution**2)
  moderated = (prior * pooled[..., None] + df * floored) / (prior + df)
  moderated = np.maximum(moderated, resolution**2)
  first, others = moderated[..., :1], moderated[..., 1:]
  weight = df + prior
  with np.errstate(divide="ignore", invalid="ignore"):
    joint = (others + first) ** 2 / (
      others**2 / weight[..., 1:] + first**2 / weight[..., :1]
    )
  # The pooled variance is itself an estimate: no more than its own degrees of freedom.
  joint = np.minimum(joint, total[..., None])
  difference = scores[..., 1:, :] - scores[..., :1, :]
  count = np.isfinite(difference).sum(-1)
  sums = np.where(np.isfinite(difference), difference, 0).sum(-1)
  with np.errstate(divide="ignore", invalid="ignore"):
    return Contrasts(sums / count, np.sqrt((others + first) / count), joint, count)


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
  weight = held.astype(np.float64)
  variants, seeds = held.shape[-2:]
  normal = np.zeros((*held.shape[:-2], variants + seeds, variants + seeds))
  v, s = np.arange(variants), variants + np.arange(seeds)
  normal[..., v, v], normal[..., s, s] = weight.sum(-1), weight.sum(-2)
  normal[..., :variants, variants:] = weight
  normal[..., variants:, :variants] = np.swapaxes(weight, -1, -2)
  if held.ndim > 2 and held.all():  # one layout for all
    normal = normal[(slice(0, 1),) * (held.ndim - 2)]
  return np.linalg.pinv(normal, hermitian=True)
