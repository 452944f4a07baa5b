"""Standard errors of means over seeds and scored examples, two crossed random effects.

Every seed of a run scores the same examples: score[s, e] = mean + seed[s] + example[e]
+ rest[s, e]. Other seeds and other examples would give another mean; its variance is

  (MS_seeds + MS_examples - MS_rest) / (S E)

by the mean squares of the two-way layout. MS_seeds / (S E) is what a spread over seeds
shows; the rest is what the test set adds, and no number of seeds lowers it. Of a
difference of two variants the scores are differences, paired by seed and by example.

Searle, Casella and McCulloch, 1992, Variance Components, section 4.3, two-way crossed
classification; Bates et al., 2015, https://doi.org/10.18637/jss.v067.i01.
"""

import dataclasses
from collections.abc import Collection, Iterable, Sequence

import numpy as np
from scipy import special

from experiments.reporting.family import Pair
from experiments.reporting.loaded_run import LoadedRun
from experiments.reporting.statistics import (
  LEVEL,
  NOTHING,
  UNBOUNDED,
  Bounds,
  Estimate,
)


@dataclasses.dataclass(frozen=True)
class CrossedVariance:
  """Variance of a mean over seeds and examples, by source.

  mean       over seeds and examples
  seeds      variance that other seeds give, on the same examples; None: of one seed
  examples   variance that other examples add
  count_S    number of seeds
  count_E    number of examples

  >>> scores_SE = np.array([[1.0, 2.0, 6.0], [2.0, 3.0, 7.0]])
  >>> found = crossed(scores_SE)
  >>> found.mean, found.seeds, round(found.examples, 3)
  (3.5, 0.25, 2.333)
  """

  mean: float
  seeds: float | None
  examples: float
  count_S: int
  count_E: int

  @property
  def error(self) -> float | None:
    """Returns the standard error from both sources; None: of one seed."""
    return None if self.seeds is None else float(np.sqrt(self.seeds + self.examples))

  def added(self, error: float, df: float) -> tuple[float, float]:
    """Adds the examples' variance to a standard error over seeds.

    error   of the same mean, however the seeds' variance was estimated
    df      its degrees of freedom; those of an error of 0 count for nothing

    Returns the error from both sources and its degrees of freedom (Satterthwaite, 1946,
    https://doi.org/10.2307/3002019).
    """
    variance = error**2 + self.examples
    parts = self.examples**2 / (self.count_E - 1)
    parts += (error**2) ** 2 / df if error else 0.0
    return float(np.sqrt(variance)), variance**2 / parts if parts else df


def crossed(scores_SE: np.ndarray) -> CrossedVariance | None:
  """Returns the variance of the mean of scores, seeds by examples; None: too few.

  scores_SE   an example without a score in some seed is left out

  Estimates below zero are zero. Of one seed the examples' variance holds the rest too.
  """
  scores_SE = np.asarray(scores_SE, np.float64)
  scores_SE = scores_SE[:, np.isfinite(scores_SE).all(axis=0)]
  S, E = scores_SE.shape
  if S < 1 or E < 2:
    return None
  mean = scores_SE.mean()
  seed_S1, example_1E = scores_SE.mean(1, keepdims=True), scores_SE.mean(0)[None]
  examples = S * np.sum((example_1E - mean) ** 2) / (E - 1)
  if S == 1:
    return CrossedVariance(float(mean), None, float(examples / E), S, E)
  seeds = E * np.sum((seed_S1 - mean) ** 2) / (S - 1)
  rest_SE = scores_SE - seed_S1 - example_1E + mean
  rest = np.sum(rest_SE**2) / ((S - 1) * (E - 1))
  added = max(0.0, float(examples - rest) / (S * E))
  return CrossedVariance(float(mean), float(seeds / (S * E)), added, S, E)


def interval(scores_SE: np.ndarray, bounds: Bounds = UNBOUNDED) -> Estimate:
  """Returns the mean of scores with its 95% interval over other seeds and examples.

  scores_SE   seeds by examples; of one seed the interval is over examples alone
  bounds      least and largest value that is possible

  >>> scores_SE = np.array([[1.0, 2.0, 6.0], [2.0, 3.0, 7.0]])
  >>> found = interval(scores_SE, bounds=(0.0, None))
  >>> found.mean, found.low, round(found.high, 2), found.count
  (3.5, 0.0, 9.43, 2)
  """
  found = crossed(scores_SE)
  if found is None:
    return NOTHING
  S, E = found.count_S, found.count_E
  error, df = float(np.sqrt(found.examples)), E - 1.0
  if found.seeds is not None:
    error, df = found.added(float(np.sqrt(found.seeds)), S - 1.0)
  plain = Estimate(found.mean, None, None, S)
  if not error:
    return dataclasses.replace(plain, note="the same in every seed and example")
  half = float(special.stdtrit(df, (1 + LEVEL) / 2) * error)
  return plain.within((found.mean - half, found.mean + half), bounds)


def seed_pairs(apart_SE: np.ndarray) -> np.ndarray:
  """Returns jackknife values of a mean over pairs of seeds, to be given to `interval`.

  apart_SE   mean of each seed's pairs with the others, by example

  Two seeds' means have their pair in common, so that they vary less than the mean over
  all pairs does. That mean is a U-statistic; leaving one seed out at a time tells its
  variance: value[s] = S times the mean of all pairs, minus S - 1 times that of those
  without s. The mean of these values is that of all pairs. NaN below three seeds, where
  no pair is left. Arvesen, 1969, https://doi.org/10.1214/aoms/1177697287.

  >>> pairs = {(0, 1): 1.0, (0, 2): 2.0, (1, 2): 6.0}
  >>> seed_pairs(np.array([[1.5], [3.5], [4.0]])).ravel().tolist()  # 3 x 3 - 2 x pair
  [-3.0, 5.0, 7.0]
  """
  S = len(apart_SE)
  if S < 3:
    return np.full(np.shape(apart_SE), np.nan)
  mean_E = np.mean(apart_SE, axis=0)
  return mean_E + 2 * (S - 1) / (S - 2) * (apart_SE - mean_E)


def of_pairs(
  runs: Sequence[LoadedRun],
  pairs: Iterable[Pair],
  length: int,
  measure: str,
  part: str,
  seeds: Collection[int] | None = None,
) -> dict[Pair, CrossedVariance]:
  """Returns the variances of differences, the first of a pair minus the second.

  Paired over the seeds and the examples that both have. A pair is missing where a run
  has no scores of single examples, where the targets differ, or without a common seed.

  runs                    of one group, finished or not
  pairs                   of their labels
  length, measure, part   the score
  seeds                   that count; None: all
  """
  named: dict[str | None, LoadedRun] = {run.label: run for run in runs}
  found: dict[Pair, CrossedVariance] = {}
  for pair in pairs:
    if not {*pair} <= named.keys():
      continue
    both = [named[label] for label in pair]
    scores = [of_run(run, length, measure, part) for run in both]
    alike = len({run.target(length, measure) for run in both}) == 1
    both_seeds = scores[0].keys() & scores[1].keys()
    shared = sorted(both_seeds if seeds is None else both_seeds & {*seeds})
    if not alike or not shared:
      continue
    difference_SE = np.stack([scores[0][seed] - scores[1][seed] for seed in shared])
    if variance := crossed(difference_SE):
      found[pair] = variance
  return found


def of_run(
  run: LoadedRun, length: int, measure: str, part: str
) -> dict[int, np.ndarray]:
  """Returns {seed: scores of its examples}, of the seeds with a value; {}: unknown."""
  examples, cell = run.examples, (length, measure, part)
  if examples is None or cell not in examples.value_SE:
    return {}
  valued = run.values(length, measure, part)
  return {
    seed: value_E.astype(np.float64)
    for seed, value_E in zip(examples.seeds, examples.value_SE[cell], strict=True)
    if seed in valued
  }
