"""Made noise of reports: scores with known means and standard deviations.

Letters: R reports, C columns (a measure at a length of a group), V variants with the
baseline first, S seeds.
"""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
from scipy import special

from experiments.calibration.recorded import SPREADS, score_noise

EXAMPLES = 640  # scored strings behind a bounded score
SPREAD = 10.0  # largest seed standard deviation over the smallest, where unequal


@dataclasses.dataclass(frozen=True)
class Reports:
  """Scores of many reports and the truth behind them.

  scores_RCVS  NaN: a lost seed
  mean_RCV     true means; a variant equal to the baseline is a true null hypothesis
  sd_RCV       true standard deviations over seeds that pairing leaves

  >>> reports = normal(np.random.default_rng(0), (100, 4, 6, 3))
  >>> reports.scores_RCVS.shape, float(reports.sd_RCV.max())
  ((100, 4, 6, 3), 1.0)
  """

  scores_RCVS: np.ndarray
  mean_RCV: np.ndarray
  sd_RCV: np.ndarray


@dataclasses.dataclass(frozen=True)
class SeedNoise:
  """A kind of seed noise.

  title    what it is, for the table
  draw     makes reports from a generator and a shape (R, C, V, S)
  towards  sign of the effect that power is measured with: away from a bound

  >>> NOISES["equal"].draw(np.random.default_rng(0), (2, 1, 6, 3)).mean_RCV.shape
  (2, 1, 6)
  """

  title: str
  draw: Callable[[np.random.Generator, tuple[int, ...]], Reports]
  towards: float = 1.0


def additive(noise_RCVS: np.ndarray, sd_RCV: np.ndarray | None = None) -> Reports:
  """Returns reports without any effect: standardized noise times its deviations."""
  sd_RCV = np.ones(noise_RCVS.shape[:-1]) if sd_RCV is None else sd_RCV
  return Reports(noise_RCVS * sd_RCV[..., None], np.zeros(sd_RCV.shape), sd_RCV)


def normal(rng, shape):
  return additive(rng.standard_normal(shape))


def unequal(rng, shape):
  spread_V = np.geomspace(1, SPREAD, shape[2])
  sd_RCV = rng.permuted(np.broadcast_to(spread_V, shape[:3]), axis=-1)
  return additive(rng.standard_normal(shape), sd_RCV)


def noisy_baseline(rng, shape):
  spread_V = np.geomspace(SPREAD, 1, shape[2])
  return additive(rng.standard_normal(shape), np.broadcast_to(spread_V, shape[:3]))


def heavy(rng, shape):
  return additive(rng.standard_t(3, shape) / np.sqrt(3))


def skewed(rng, shape):
  return additive(rng.exponential(size=shape) - 1)


def blocks(rng, shape):
  """Variants correlated over seeds: .85 in half the columns, .23 in the others."""
  share_C = np.resize([0.85, 0.23], shape[1])[:, None, None]
  shared = rng.standard_normal((shape[0], shape[1], 1, shape[3]))
  own = rng.standard_normal(shape)
  return additive(own + np.sqrt(share_C / (1 - share_C)) * shared)


def uneven_blocks(rng, shape):
  """A shared seed effect that variants follow to a different degree, 0.5 to 1.5.

  Its standard deviation is 1.5 times that of a variant's own noise.
  """
  shared = 1.5 * rng.standard_normal((shape[0], shape[1], 1, shape[3]))
  loading = rng.uniform(0.5, 1.5, (*shape[:3], 1))
  return additive(rng.standard_normal(shape) + loading * shared)


def bounded(rng, shape):
  """Shares of 640 strings right, around 0.5 and 0.88: normal in logits."""
  centre_C, width = np.resize([0.0, 2.0], shape[1]), 0.3
  logits = centre_C[:, None, None] + width * rng.standard_normal(shape)
  scores = np.round(special.expit(logits) * EXAMPLES) / EXAMPLES
  nodes, weights = np.polynomial.hermite_e.hermegauss(40)
  values_CN = special.expit(centre_C[:, None] + width * nodes)
  weights = weights / weights.sum()
  mean_C = values_CN @ weights
  sd_C = np.sqrt(values_CN**2 @ weights - mean_C**2)
  place = np.ones(shape[:3])
  return Reports(scores, place * mean_C[:, None], place * sd_C[:, None])


def ceiling(rng, shape):
  """Scores cut off at 1: every second one is perfect."""
  scores = np.minimum(1, 1 + rng.standard_normal(shape))
  place = np.ones(shape[:3])
  below = 1 / np.sqrt(2 * np.pi)  # mean of what is cut off
  return Reports(scores, place * (1 - below), place * np.sqrt(0.5 - below**2))


def solved(rng, shape):
  """Two variants right in every seed, the others far below with equal noise."""
  sd_RCV, mean_RCV = np.ones(shape[:3]), np.zeros(shape[:3])
  sd_RCV[..., -2:], mean_RCV[..., -2:] = 0, 8
  scores = mean_RCV[..., None] + sd_RCV[..., None] * rng.standard_normal(shape)
  return Reports(scores, mean_RCV, sd_RCV)


def lost(rng, shape):
  """Each variant, the baseline too, loses one seed in one of six columns."""
  found = additive(rng.standard_normal(shape))
  gone = rng.random(shape[:3]) < 1 / 6
  which = rng.integers(shape[3], size=shape[:3])
  gone = gone[..., None] & (np.arange(shape[3]) == which[..., None])
  return dataclasses.replace(
    found, scores_RCVS=np.where(gone, np.nan, found.scores_RCVS)
  )


def recorded(rng, shape):
  """Normal noise with spreads drawn from the columns of published reports."""
  sd_RCV = np.empty(shape[:3])
  column_RC = rng.integers(len(SPREADS), size=shape[:2])
  for n, spreads in enumerate(SPREADS):
    at = column_RC == n
    sd_RCV[at] = rng.choice(spreads, (at.sum(), shape[2]))
  return additive(rng.standard_normal(shape), sd_RCV)


def recorded_heavy(rng, shape):
  found = recorded(rng, shape)
  heavy_RCVS = rng.standard_t(3, shape) / np.sqrt(3)
  return additive(heavy_RCVS, found.sd_RCV)


def recorded_scores(rng, shape, baseline=False):
  """Noise of recorded scores, of a recorded column for each column of a report.

  baseline   the recorded sweep's baseline is that of every report, else any variant
  """
  scores_RCVS, sd_RCV = np.empty(shape), np.empty(shape[:3])
  columns = score_noise()
  column_RC = rng.integers(len(columns), size=shape[:2])
  for n, noise_VS in enumerate(columns):
    at = column_RC == n
    scores_RCVS[at], sd_RCV[at] = _redrawn(
      rng, noise_VS, (at.sum(), *shape[2:]), baseline
    )
  return Reports(scores_RCVS, np.zeros(shape[:3]), sd_RCV)


def _redrawn(rng, noise_VS, shape, baseline):
  """Returns noise of a recorded column in K reports, and the deviations of variants.

  Variants are in random order and stay beside each other: a seed is the same for all.
  It takes part once before any does twice, with a random sign, so that a mean over few
  of the recorded seeds varies as one over new seeds would. Where a column has fewer
  than V variants some stand twice, the second time with other seeds.

  noise_VS   of the recorded column
  shape      (K, V, S)
  baseline   its first variant stays the first
  """
  (K, V, S), (variants, seeds) = shape, noise_VS.shape
  place_V = np.arange(V)
  fixed, order_KV = int(baseline), np.tile(np.arange(variants), (K, 1))
  order_KV[:, fixed:] = rng.permuted(order_KV[:, fixed:], axis=1)
  order_KV = order_KV[:, place_V % variants]
  again_V = place_V // variants
  seed_KSV = np.empty((K, S, V), int)
  sign_KSV = np.empty((K, S, V))
  for again in np.unique(again_V):
    seed_KN = rng.permuted(np.tile(np.arange(seeds), (K, 1)), axis=1)
    seed_KSV[..., again_V == again] = seed_KN[:, np.arange(S) % seeds, None]
    sign_KSV[..., again_V == again] = rng.choice([-1.0, 1.0], (K, S, 1))
  noise_KVS = noise_VS[order_KV[..., None], seed_KSV.swapaxes(1, 2)]
  noise_KVS = noise_KVS * sign_KSV.swapaxes(1, 2)
  # Half the variance of the difference from the baseline is each one's part.
  own_KV = (noise_VS[order_KV] ** 2).mean(-1)
  paired_KV = ((noise_VS[order_KV] - noise_VS[order_KV[:, :1]]) ** 2).mean(-1)
  apart_KV = own_KV + own_KV[:, :1]
  sd_KV = np.sqrt(np.where(again_V > 0, apart_KV, paired_KV) / 2)
  sd_KV[:, 0] = sd_KV[:, 1]
  return noise_KVS, sd_KV


NOISES = {
  "equal": SeedNoise("equal, normal", normal),
  "unequal": SeedNoise("10-fold unequal", unequal),
  "baseline": SeedNoise("10-fold unequal, baseline the noisiest", noisy_baseline),
  "heavy": SeedNoise("heavy-tailed (t, 3 df)", heavy),
  "skewed": SeedNoise("skewed (exponential)", skewed),
  "blocks": SeedNoise("seeds as blocks (.85 and .23)", blocks),
  "uneven": SeedNoise("seeds as blocks, unevenly followed", uneven_blocks),
  "bounded": SeedNoise("bounded shares", bounded),
  "ceiling": SeedNoise("saturated: half the scores at 1", ceiling, -1.0),
  "solved": SeedNoise("saturated: two variants solved", solved),
  "lost": SeedNoise("lost seeds", lost),
  "recorded": SeedNoise("recorded spreads, normal", recorded),
  "recorded_heavy": SeedNoise("recorded spreads, heavy-tailed", recorded_heavy),
  "scores": SeedNoise("recorded scores, any baseline", recorded_scores),
  "scores_none": SeedNoise(
    "recorded scores, their baseline", functools.partial(recorded_scores, baseline=True)
  ),
}
