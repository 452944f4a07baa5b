"""Metrics of dispatches under way, and the seeds that they show to have diverged."""

import collections
import dataclasses
import functools
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from transformer_jax import global_arrays
from transformer_jax.training import seed_parts
from transformer_jax.training.auxiliary.terms import AUXILIARY


@dataclasses.dataclass
class DispatchMetrics:
  """Metrics of one dispatch: means over its steps, one value per seed.

  Steps whose batch has no target do not count. If no step has one, metrics are NaN.

  diverged   number of seeds that have diverged so far

  >>> def report(now):  # an argument of `fit`
  ...   print(f"step {now.step}: loss {now.metrics['loss'].mean():.2f}")
  >>> metrics = {"loss": np.array([2.5, 1.5])}  # of two seeds
  >>> report(DispatchMetrics(step=100, metrics=metrics, seconds=2.0, diverged=0))
  step 100: loss 2.00
  """

  step: int
  metrics: dict[str, np.ndarray]
  seconds: float
  diverged: int


def divergences(meta: Mapping[str, Any]) -> tuple[dict[int, int], dict[int, str]]:
  """Returns `diverged` and `causes` of a FitResult, from the note of a checkpoint."""
  diverged = {int(place): first for place, first in meta["diverged"].items()}
  causes = {int(place): cause for place, cause in meta.get("causes", {}).items()}
  return diverged, causes


class PendingMetrics:
  """Metrics of dispatches under way, reported in their order.

  diverged   first step with a loss that is not finite, by place of the seed; filled
  causes     auxiliary loss that was not finite first, by place; filled
  report     called with the metrics of every dispatch

  >>> diverged = {}
  >>> pending = PendingMetrics(diverged, {}, lambda now: print(now.step))
  >>> loss_SN = np.array([[2.0, 4.0], [3.0, np.nan]])  # of two seeds
  >>> pending.add(10, [{"loss": loss_SN, "targets": np.ones((2, 2))}])
  >>> pending.settle(leave=0)
  10
  >>> diverged  # the second seed, at its tenth step
  {1: 10}
  """

  def __init__(
    self,
    diverged: dict[int, int],
    causes: dict[int, str],
    report: Callable[[DispatchMetrics], None],
  ):
    self.diverged, self.causes, self.report = diverged, causes, report
    self.dispatches: collections.deque = collections.deque()
    self.last_report = time.perf_counter()

  def add(self, step: int, metrics: list[dict[str, jax.Array]]) -> None:
    """Adds the metrics of the dispatch that ends at a step, by parts of the seeds."""
    self.dispatches.append((step, metrics))

  def settle(self, leave: int) -> None:
    """Reports the oldest dispatches, all but the `leave` newest; waits for them."""
    while len(self.dispatches) > leave:
      last, metrics = self.dispatches.popleft()
      metrics = seed_parts.join(global_arrays.read(metrics))
      taught_SN = metrics.pop("targets") != 0
      note_divergence(self.diverged, self.causes, last, metrics, taught_SN)
      now = time.perf_counter()
      means = {name: mean_of_steps(x_SN, taught_SN) for name, x_SN in metrics.items()}
      seconds, diverged = now - self.last_report, len(self.diverged)
      self.report(DispatchMetrics(last, means, seconds, diverged))
      self.last_report = now


def mean_of_steps(x_SN: np.ndarray, taught_SN: np.ndarray) -> np.ndarray:
  """Returns the mean over the steps that had a target; NaN where none had."""
  if taught_SN.all():
    return x_SN.mean(axis=1)
  sum_S = np.where(taught_SN, x_SN, 0).sum(axis=1)
  count_S = taught_SN.sum(axis=1)
  return np.where(count_S, sum_S / np.maximum(count_S, 1), np.nan).astype(x_SN.dtype)


def note_divergence(
  diverged: dict[int, int],
  causes: dict[int, str],
  last: int,
  metrics: Mapping[str, np.ndarray],
  taught_SN: np.ndarray,
) -> None:
  """Records the first step at which a loss of each seed was not finite.

  A step without a target has no loss.
  """
  bad = {
    name: ~np.isfinite(x_SN) & taught_SN
    for name, x_SN in metrics.items()
    if name == "loss" or name.startswith(AUXILIARY)
  }
  bad_SN = functools.reduce(np.logical_or, bad.values())
  first = last - bad_SN.shape[1] + 1
  for seed in map(int, np.flatnonzero(bad_SN.any(axis=1))):
    if seed in diverged:
      continue
    at = int(bad_SN[seed].argmax())
    diverged[seed] = first + at
    names = [name for name, x_SN in bad.items() if x_SN[seed, at]]
    if "loss" not in names:  # else the parameters were lost before
      causes[seed] = names[0]
