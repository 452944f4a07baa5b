"""Candidate methods of a report's verdicts, over many reports at once.

A method takes scores_RCVS (NaN: lost) and returns two arrays over reports, columns and
variants but the baseline: p values of single comparisons, whose 95% intervals they
stand for, and p values adjusted for the whole report.
"""

import functools
from collections.abc import Callable

import numpy as np
from scipy import special, stats

from experiments.reporting import moderated

Method = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
DRAWS = 199  # permutations and bootstrap samples; 1 / 200 is the smallest p value


def holm(p: np.ndarray, axes: int = 2) -> np.ndarray:
  """Returns p values after Holm's correction over the last `axes` axes; NaN stays."""
  flat = p.reshape(*p.shape[: p.ndim - axes], -1)
  tested = np.isfinite(flat)
  order = np.argsort(np.where(tested, flat, np.inf), -1)
  left = tested.sum(-1, keepdims=True) - np.arange(flat.shape[-1])
  steps = np.take_along_axis(np.where(tested, flat, 0), order, -1) * np.maximum(left, 0)
  adjusted = np.empty_like(flat)
  np.put_along_axis(
    adjusted, order, np.minimum(1, np.maximum.accumulate(steps, -1)), -1
  )
  return np.where(tested, adjusted, np.nan).reshape(p.shape)


def paired(scores: np.ndarray) -> np.ndarray:
  """Returns p values of paired t tests, as experiments/reporting/statistics.py."""
  difference, count = differences(scores)
  with np.errstate(divide="ignore", invalid="ignore"):
    centred = difference - (mean := _mean(difference))[..., None]
    variance = np.where(np.isfinite(centred), centred**2, 0).sum(-1) / (count - 1)
    t = mean / np.sqrt(variance / count)
  p = 2 * stats.t.sf(np.abs(t), np.maximum(count - 1, 1))
  same = variance <= (moderated.ROUNDING * np.abs(np.nan_to_num(scores)).max()) ** 2
  p = np.where(same, np.where(mean == 0, 1.0, 2.0 ** (1 - count)), p)
  return np.where(count > 1, p, np.nan)


def paired_by_column(scores):
  """Paired t tests, Holm within each column: the report's verdicts so far."""
  p = paired(scores)
  return p, holm(p, 1)


def paired_by_report(scores):
  """Paired t tests, Holm over the whole report."""
  p = paired(scores)
  return p, holm(p)


def dunnett(scores):
  """Dunnett's test in the block design, Bonferroni over columns."""
  t, df = pooled_t(scores)
  p = 2 * stats.t.sf(np.abs(t), df)
  adjusted = np.empty_like(p)
  for value in np.unique(df[np.isfinite(df)]):
    at = df == value
    adjusted[at] = dunnett_p(np.abs(t[at]), round(float(value), 6), t.shape[-1])
  return p, np.minimum(1, adjusted * scores.shape[1])


def pooled_t(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns t statistics with each column's pooled residual variance, and their df."""
  difference, count = differences(scores)
  held = np.isfinite(scores)
  squares, expected = moderated.residual_squares(np.where(held, scores, 0), held)
  total = expected.sum(-1)
  variance = squares.sum(-1) / total
  with np.errstate(divide="ignore", invalid="ignore"):
    t = _mean(difference) / np.sqrt(2 * variance[..., None] / count)
  return t, np.broadcast_to(np.round(total, 6)[..., None], t.shape)


def dunnett_p(t: np.ndarray, df: float, comparisons: int) -> np.ndarray:
  """Returns P(max |T| >= t) over comparisons with one control of equal sizes."""
  grid, log_p = _dunnett_table(df, comparisons)
  return np.exp(np.interp(t, grid, log_p))


@functools.cache
def _dunnett_table(df: float, comparisons: int) -> tuple[np.ndarray, np.ndarray]:
  """Integrates the multivariate t with correlation 1/2 (Dunnett, 1955)."""
  nodes, weights = np.polynomial.hermite_e.hermegauss(40)
  weights = weights / weights.sum()
  chances = (np.arange(100) + 0.5) / 100
  scale = np.sqrt(stats.chi2.ppf(chances, df) / df)[:, None]
  grid = np.concatenate([np.linspace(0, 8, 81), np.geomspace(8.2, 400, 40)])
  inside = np.array([_inside(t * scale, nodes, weights, comparisons) for t in grid])
  return grid, np.log(np.maximum(1 - inside, 1e-6))


def _inside(t, nodes, weights, comparisons):
  root = np.sqrt(2)
  each = special.ndtr(t * root + nodes) - special.ndtr(-t * root + nodes)
  return float((each**comparisons @ weights).mean())


def limma(scores):
  """Variances moderated as limma's, prior estimated by the report; Holm over all.

  Smyth, 2004: the prior's weight d0 from the spread of log variances of all columns,
  its scale from each column's mean log variance.
  """
  variance, df, pooled, total = moderated.variances(scores)
  df = np.maximum(df, 1e-9)
  least = 1e-8 * pooled[..., None]
  e = np.log(np.maximum(variance, least)) - special.digamma(df / 2) + np.log(df / 2)
  center = e.mean(-1, keepdims=True)
  excess = ((e - center) ** 2).sum(-1) / (e.shape[-1] - 1)
  excess = (excess - special.polygamma(1, df / 2).mean(-1)).mean(-1)
  d0 = np.where(excess > 0, 2 * trigamma_inverse(np.maximum(excess, 1e-6)), 1e8)
  d0 = np.minimum(d0, 1e8)[:, None, None]
  scale = np.exp(center + special.digamma(d0 / 2) - np.log(d0 / 2))
  scale = np.where(d0 > 1e5, pooled[..., None], scale)
  shrunk = (d0 * scale + df * variance) / (d0 + df)
  first, others = shrunk[..., :1], shrunk[..., 1:]
  parts = others**2 / (d0 + df[..., 1:]) + first**2 / (d0 + df[..., :1])
  joint = np.minimum((others + first) ** 2 / parts, total[..., None])
  difference, count = differences(scores)
  with np.errstate(divide="ignore", invalid="ignore"):
    t = _mean(difference) / np.sqrt((others + first) / count)
  p = 2 * stats.t.sf(np.abs(t), joint)
  return p, holm(p)


def trigamma_inverse(x: np.ndarray) -> np.ndarray:
  """Returns y with trigamma(y) = x, by Newton's method (Smyth, 2004, appendix)."""
  y = 0.5 + 1 / x
  for _ in range(30):
    value = special.polygamma(1, y)
    y = y + value * (1 - value / x) / special.polygamma(2, y)
  return y


def weighted(prior: float) -> Method:
  """Returns the method of fixed weight, in degrees of freedom, Holm over the report."""

  def method(scores):
    p = moderated.contrasts(scores, prior).p_values()
    return p, holm(p)

  return method


def permutation(scores):
  """Permutes variants within seeds; the largest |difference| of the report's columns.

  Differences are divided by a column's spread within seeds, which no permutation
  changes. It tests that all variants are equal: strong control it has not.
  """
  rng = np.random.default_rng(0)
  spread = np.sqrt(np.nanvar(scores, axis=2, keepdims=True).mean(-1))
  observed = np.abs(_mean(differences(scores)[0])) / spread

  def draws():
    for _ in range(DRAWS):
      shuffled = rng.permuted(scores, axis=2)
      yield np.abs(_mean(differences(shuffled)[0])) / spread

  return exceedances(observed, draws())


def seed_bootstrap(scores):
  """Studentized bootstrap of whole seeds: the largest |t| of paired differences."""
  rng = np.random.default_rng(0)
  difference, _ = differences(scores)
  mean = _mean(difference)
  observed = np.abs(_student(difference, 0))

  def draws():
    for _ in range(DRAWS):
      which = rng.integers(
        difference.shape[-1], size=(len(scores), 1, 1, scores.shape[-1])
      )
      sample = np.take_along_axis(difference, which, -1)
      yield np.abs(_student(sample, mean))

  return exceedances(observed, draws())


def residual_bootstrap(scores):
  """Studentized bootstrap of a column's residuals: the largest |t| of pooled t."""
  rng = np.random.default_rng(0)
  held = np.isfinite(scores)
  data = np.where(held, scores, 0)
  inverse = moderated.layout_inverse(held)
  variants = scores.shape[2]

  def fit(values):
    right = np.concatenate([values.sum(-1), values.sum(-2)], -1)
    effects = (inverse @ right[..., None])[..., 0]
    fitted = effects[..., :variants, None] + effects[..., None, variants:]
    return np.where(held, values - fitted, 0)

  def statistic(values):
    spread = np.sqrt((fit(values) ** 2).sum((-1, -2)))
    kept = np.where(held, values, np.nan)
    return np.abs(_mean(differences(kept)[0])) / spread[..., None]

  residuals = fit(data).reshape(*scores.shape[:2], -1)
  # A lost seed's residual is never drawn: another one stands in its place.
  order = np.argsort(~held.reshape(residuals.shape), -1, kind="stable")
  residuals = np.take_along_axis(residuals, order, -1)
  count = held.sum((-1, -2))[..., None]

  def draws():
    for _ in range(DRAWS):
      which = (rng.random(residuals.shape) * count).astype(int)
      sample = np.take_along_axis(residuals, which, -1).reshape(data.shape)
      yield statistic(np.where(held, sample, 0))

  return exceedances(statistic(data), draws())


def exceedances(observed, draws) -> tuple[np.ndarray, np.ndarray]:
  """Returns p values of single comparisons, and of the largest of the report."""
  single = np.ones(observed.shape)
  largest = np.ones(observed.shape)
  for drawn in draws:
    drawn = np.where(np.isnan(drawn), 0, drawn)
    single += drawn >= observed
    largest += drawn.max((1, 2))[:, None, None] >= observed
  untested = np.isnan(observed)
  single, largest = single / (DRAWS + 1), largest / (DRAWS + 1)
  return np.where(untested, np.nan, single), np.where(untested, np.nan, largest)


def differences(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns variants minus the first, seed by seed, and how many seeds have both."""
  difference = scores[..., 1:, :] - scores[..., :1, :]
  return difference, np.isfinite(difference).sum(-1)


def _mean(values: np.ndarray) -> np.ndarray:
  held = np.isfinite(values)
  with np.errstate(divide="ignore", invalid="ignore"):
    return np.where(held, values, 0).sum(-1) / held.sum(-1)


def _student(values, centre):
  mean, count = _mean(values), np.isfinite(values).sum(-1)
  squares = np.where(np.isfinite(values), (values - mean[..., None]) ** 2, 0).sum(-1)
  with np.errstate(divide="ignore", invalid="ignore"):
    return (mean - centre) / np.sqrt(squares / (count - 1) / count)


METHODS: dict[str, Method] = {
  "before": paired_by_column,
  "paired": paired_by_report,
  "Dunnett": dunnett,
  "limma": limma,
  "permutation": permutation,
  "seed bootstrap": seed_bootstrap,
  "residual bootstrap": residual_bootstrap,
  "moderated": weighted(moderated.PRIOR),
}
RESAMPLING = {"permutation", "seed bootstrap", "residual bootstrap"}
