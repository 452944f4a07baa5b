"""Simulated sweeps that add seeds until they are resolved, many at once.

Letters as in seed_noise.py: R reports, C columns, V variants with the baseline first, S
seeds; P pairs, each variant but the baseline with it; G groups. A group is a run's two
columns, its trained and its longest length: a run stops when both are decided.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy import special

from experiments.calibration.methods import holm
from experiments.calibration.rates import ALPHA
from experiments.reporting import moderated
from experiments.reporting.power import POWER
from experiments.reporting.statistics import LEVEL

COLUMNS_OF_RUN = 2
CHUNK = 4000  # reports at a time


@dataclasses.dataclass(frozen=True)
class Ended:
  """Simulated sweeps at their end.

  resolved_RCP   comparisons that are claimed to differ
  mean_RCP       differences at the last look
  half_RCP       half the width of their 95% intervals
  seeds_RGV      seeds of each run

  >>> scores_RCVS = np.random.default_rng(0).normal(size=(5, 4, 6, 4))
  >>> ended = run(scores_RCVS, (3, 4), (0.5, 0.5))
  >>> ended.resolved_RCP.shape, ended.seeds_RGV.shape
  ((5, 4, 5), (5, 2, 6))
  """

  resolved_RCP: np.ndarray
  mean_RCP: np.ndarray
  half_RCP: np.ndarray
  seeds_RGV: np.ndarray


def run(
  scores_RCVS: np.ndarray,
  counts: Sequence[int],
  weights: Sequence[float],
  gives_up: bool = True,
) -> Ended:
  """Returns sweeps that were run until resolved.

  scores_RCVS   of the largest number of seeds; NaN is lost
  counts        seeds at each look; one look is a sweep of fixed seeds
  weights       share of the error that each look may spend
  gives_up      whether comparisons without a prospect get no more seeds
  """
  parts = [
    _Sweeps(scores_RCVS[n : n + CHUNK], counts, weights, gives_up).run()
    for n in range(0, len(scores_RCVS), CHUNK)
  ]
  names = [field.name for field in dataclasses.fields(Ended)]
  return Ended(*(np.concatenate([getattr(x, name) for x in parts]) for name in names))


class _Sweeps:
  """Sweeps between looks.

  looks_RCP   looks that both runs of a pair have reached
  p_RCP       smallest p / w so far
  last        arrays (R, C, P) of each pair's last look: mean, error, df, count
  """

  def __init__(self, scores_RCVS, counts, weights, gives_up):
    R, C, V, _ = scores_RCVS.shape
    self.scores_RCVS = scores_RCVS
    self.counts, self.weights = np.array(counts), weights
    self.gives_up = gives_up
    self.seeds_RGV = np.full((R, C // COLUMNS_OF_RUN, V), counts[0])
    self.looks_RCP = np.zeros((R, C, V - 1), int)
    self.p_RCP = np.full((R, C, V - 1), np.inf)
    self.last = {x: np.full((R, C, V - 1), np.nan) for x in ("mean", "error", "df")}
    self.last["count"] = np.ones((R, C, V - 1))

  def run(self) -> Ended:
    ended, left_R = self._ended(self.p_RCP < 0), np.arange(len(self.p_RCP))
    while len(left_R):
      self._look()
      resolved_RCP, threshold_R11 = self._claims()
      open_RCP = ~resolved_RCP & (self.looks_RCP < len(self.counts))
      if self.gives_up:
        open_RCP &= ~self._futile(threshold_R11)
      open_R = np.asarray(open_RCP.any((1, 2)))
      done_R = np.logical_not(open_R)
      for name, values in vars(self._ended(resolved_RCP)).items():
        getattr(ended, name)[left_R[done_R]] = values[done_R]
      self._add_seeds(open_RCP)
      self._keep(open_R)
      left_R = left_R[open_R]
    return ended

  def _ended(self, resolved_RCP: np.ndarray) -> Ended:
    """Returns the sweeps as they are now."""
    quantile = special.stdtrit(self.last["df"], (1 + LEVEL) / 2)
    half_RCP = quantile * self.last["error"]
    return Ended(
      resolved_RCP.copy(), self.last["mean"].copy(), half_RCP, self.seeds_RGV.copy()
    )

  def _keep(self, some_R: np.ndarray) -> None:
    """Drops the other sweeps, which have ended."""
    for name in ("scores_RCVS", "seeds_RGV", "looks_RCP", "p_RCP"):
      setattr(self, name, getattr(self, name)[some_R])
    self.last = {name: values[some_R] for name, values in self.last.items()}

  def _seeds_RCV(self) -> np.ndarray:
    return np.repeat(self.seeds_RGV, COLUMNS_OF_RUN, axis=1)

  def _look(self) -> None:
    """Tests every pair at the looks that it has newly reached."""
    seeds_RCV = self._seeds_RCV()
    both_RCP = np.minimum(seeds_RCV[..., 1:], seeds_RCV[..., :1])
    reached_RCP = np.searchsorted(self.counts, both_RCP, side="right")
    for look, (count, weight) in enumerate(zip(self.counts, self.weights, strict=True)):
      new_RCP = (self.looks_RCP <= look) & (look < reached_RCP)
      at = new_RCP.any((1, 2))
      if at.any():
        there = np.arange(count) < seeds_RCV[at][..., None]
        scores = np.where(there, self.scores_RCVS[at][..., :count], np.nan)
        self._test(at, new_RCP[at], moderated.contrasts(scores), weight)
    self.looks_RCP = reached_RCP

  def _test(self, at, new, found: moderated.Contrasts, weight: float) -> None:
    """Takes the p values and differences of a look.

    at    reports that have it
    new   their pairs that have it
    """
    p = np.where(new, found.p_values() / weight, np.inf)
    self.p_RCP[at] = np.fmin(self.p_RCP[at], p)
    for name, values in self.last.items():
      values[at] = np.where(new, getattr(found, name), values[at])

  def _claims(self) -> tuple[np.ndarray, np.ndarray]:
    """Returns the resolved pairs, and the p value that would resolve one more."""
    resolved_RCP = holm(np.minimum(self.p_RCP, 1.0)) < ALPHA
    left_R11 = (~resolved_RCP).sum((1, 2), keepdims=True)
    return resolved_RCP, ALPHA / np.maximum(left_R11, 1)

  def _futile(self, threshold_R11: np.ndarray) -> np.ndarray:
    """Returns the pairs that would need more seeds than the last look has.

    As reporting/power.py: even if the spread is at the lower end of its interval.
    """
    df, count, most = self.last["df"], self.last["count"], self.counts[-1]
    with np.errstate(divide="ignore", invalid="ignore"):
      shrink = np.sqrt(df / special.chdtri(df, (1 - LEVEL) / 2) * count / most)
      later = df * (most - 1) / (count - 1)
      below = threshold_R11 * self.weights[-1] / 2
      wide = special.stdtrit(later, POWER) - special.stdtrit(later, below)
      return wide * shrink * self.last["error"] > np.abs(self.last["mean"])

  def _add_seeds(self, open_RCP: np.ndarray) -> None:
    """Gives both runs of an open pair the seeds of its next look."""
    following = self.counts[np.minimum(self.looks_RCP, len(self.counts) - 1)]
    wanted_RCP = np.where(open_RCP, following, 0)
    wanted_RCV = np.concatenate([wanted_RCP.max(-1, keepdims=True), wanted_RCP], -1)
    R, C, V = wanted_RCV.shape
    wanted_RGV = wanted_RCV.reshape(R, C // COLUMNS_OF_RUN, COLUMNS_OF_RUN, V).max(2)
    self.seeds_RGV = np.maximum(self.seeds_RGV, wanted_RGV)
