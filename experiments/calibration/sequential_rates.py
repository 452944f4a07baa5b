"""Rates of sweeps that are run until resolved, beside those of fixed seeds."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from experiments.calibration import sequential
from experiments.calibration.rates import COLUMNS, VARIANTS, with_effect
from experiments.calibration.seed_noise import Reports, SeedNoise
from experiments.calibration.sequential import Ended

SMALL, LARGE = 2.0, 4.0  # effects, in standard deviations over seeds


@dataclasses.dataclass(frozen=True)
class SequentialRates:
  """Rates in percent, of reports unless another thing is named.

  errors      with a false verdict where nothing differs
  power       that resolve the one effect, {its size in standard deviations: rate}
  seeds       mean seeds of a run, {size of every variant's effect: seeds}; 0.0: none
  estimate    of the one effect where it is resolved, in percent of the truth, by size
  coverage    intervals at the last look that hold a difference, by its size

  >>> from experiments.calibration.seed_noise import NOISES
  >>> measure(NOISES["equal"], (3,), (1.0,), 100, 100).seeds
  {0.0: 3.0, 2.0: 3.0, 4.0: 3.0}
  """

  errors: float
  power: dict[float, float]
  seeds: dict[float, float]
  estimate: dict[float, float]
  coverage: dict[float, float]


def measure(
  noise: SeedNoise,
  counts: Sequence[int],
  weights: Sequence[float],
  repetitions: int,
  fewer: int,
  gives_up: bool = True,
  seed: int = 0,
) -> SequentialRates:
  """Returns the rates of a schedule under a noise.

  counts, weights   numbers of seeds at the looks, and their shares of the error
  repetitions       simulated reports in which nothing differs
  fewer             the same of each kind of effect
  gives_up          whether comparisons without a prospect get no more seeds
  """
  rng = np.random.default_rng(seed)
  shape = COLUMNS, VARIANTS, counts[-1]
  reports = noise.draw(rng, (repetitions, *shape))
  null_RCP = reports.mean_RCV[..., 1:] == reports.mean_RCV[..., :1]
  nothing = sequential.run(reports.scores_RCVS, counts, weights, gives_up)
  reports = noise.draw(rng, (fewer, *shape))
  one = {
    size: sequential.run(
      with_effect(reports, noise.towards, size), counts, weights, gives_up
    )
    for size in (SMALL, LARGE)
  }
  every = {
    size: sequential.run(
      _all_differ(reports, noise.towards, size), counts, weights, gives_up
    )
    for size in (SMALL, LARGE)
  }
  truth = _size(reports)[:, 0, 0]
  held = np.abs(nothing.mean_RCP) <= nothing.half_RCP
  tested = null_RCP & np.isfinite(nothing.half_RCP)
  return SequentialRates(
    errors=_percent((nothing.resolved_RCP & null_RCP).any((1, 2))),
    power={size: _percent(x.resolved_RCP[:, 0, 0]) for size, x in one.items()},
    seeds={0.0: float(nothing.seeds_RGV.mean())}
    | {size: float(x.seeds_RGV.mean()) for size, x in every.items()},
    estimate={
      size: _estimate(x, noise.towards * size * truth) for size, x in one.items()
    },
    coverage={0.0: _percent(held[tested])}
    | {size: _covered(x, noise.towards * size * truth) for size, x in one.items()},
  )


def _percent(hits: np.ndarray) -> float:
  return 100 * float(hits.mean())


def _size(reports: Reports) -> np.ndarray:
  """Returns the unit of effects (R, C, P): the root mean square of both deviations."""
  variance = reports.sd_RCV**2
  return np.sqrt((variance[..., 1:] + variance[..., :1]) / 2)


def _all_differ(reports: Reports, towards: float, size: float) -> np.ndarray:
  """Returns scores in which each variant differs from the baseline everywhere."""
  scores = reports.scores_RCVS.copy()
  scores[..., 1:, :] += towards * size * _size(reports)[..., None]
  return scores


def _covered(ended: Ended, truth: np.ndarray) -> float:
  """Returns how often the interval of the one effect holds it, in percent."""
  off = np.abs(ended.mean_RCP[:, 0, 0] - truth)
  return _percent(off <= ended.half_RCP[:, 0, 0])


def _estimate(ended: Ended, truth: np.ndarray) -> float:
  """Returns the mean of the resolved estimates of the one effect over the truth."""
  resolved = ended.resolved_RCP[:, 0, 0]
  if not resolved.any():
    return float("nan")
  return 100 * float((ended.mean_RCP[:, 0, 0] / truth)[resolved].mean())
