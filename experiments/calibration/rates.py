"""Measures a method under a noise: family-wise error, coverage, power."""

import dataclasses

import numpy as np

from experiments.calibration.methods import Method
from experiments.calibration.seed_noise import Reports, SeedNoise

ALPHA = 0.05
COLUMNS, VARIANTS, SEEDS = 4, 6, 3  # two groups at two lengths, as the quickstart has
EFFECT = 4.0  # in standard deviations over seeds


@dataclasses.dataclass(frozen=True)
class Rates:
  """Shares of reports, or of comparisons, in percent.

  errors    reports with a false verdict among true null hypotheses
  coverage  comparisons whose 95% interval holds the true difference
  power     reports that resolve the one effect of 4 standard deviations

  >>> Rates(errors=2.0, coverage=96.0, power=41.1).power
  41.1
  """

  errors: float
  coverage: float
  power: float


def measure(
  method: Method, noise: SeedNoise, repetitions: int, seed: int = 0, seeds: int = SEEDS
) -> Rates:
  """Returns the rates of a method under a noise.

  repetitions   simulated reports
  seed          of the noise; methods are compared on the same reports
  seeds         training seeds of every variant
  """
  rng = np.random.default_rng(seed)
  reports = noise.draw(rng, (repetitions, COLUMNS, VARIANTS, seeds))
  mean_RCV = reports.mean_RCV
  null = mean_RCV[..., 1:] == mean_RCV[..., :1]
  _, adjusted = method(reports.scores_RCVS)
  errors = ((adjusted < ALPHA) & null).any((1, 2)).mean()
  centred, _ = method(reports.scores_RCVS - mean_RCV[..., None])
  tested = np.isfinite(centred)
  coverage = (centred[tested] >= ALPHA).mean()
  _, adjusted = method(with_effect(reports, noise.towards))
  power = (adjusted[:, 0, 0] < ALPHA).mean()
  return Rates(*(100 * float(x) for x in (errors, coverage, power)))


def with_effect(reports: Reports, towards: float, size: float = EFFECT) -> np.ndarray:
  """Returns scores with one effect in the whole report, the hardest case for Holm.

  size   the first variant differs from the baseline in the first column by so many
         times the root mean square of their standard deviations
  """
  variance = (reports.sd_RCV[:, 0, :2] ** 2).mean(-1)
  scores = reports.scores_RCVS.copy()
  scores[:, 0, 1] += towards * size * np.sqrt(variance)[:, None]
  return scores
