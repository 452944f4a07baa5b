"""Gymnasium's environments: sizes, and episodes that many copies play at once."""

import dataclasses
import functools
import importlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from transformer_jax.data.files import DataError
from transformer_jax.spec import nearest

Act = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (observation_NS, reward_N)


@dataclasses.dataclass(frozen=True, eq=False)
class Episodes:
  """Episodes of one environment, one after another.

  observation_TS   float32, of each step, before its action
  action_T         int32
  reward_T         float32, of the action
  size_N           int64, steps of each episode

  >>> reward_T, size_N = np.array([1.0, 2, 4]), np.array([3])
  >>> one = Episodes(np.zeros((3, 1)), np.zeros(3), reward_T, size_N)
  >>> one.return_N.tolist(), one.return_to_go_T.tolist()
  ([7.0], [7.0, 6.0, 4.0])
  """

  observation_TS: np.ndarray
  action_T: np.ndarray
  reward_T: np.ndarray
  size_N: np.ndarray

  @property
  def end_N(self) -> np.ndarray:
    """Index after the last step of each episode."""
    return np.cumsum(self.size_N)

  @property
  def return_N(self) -> np.ndarray:
    """Sum of the rewards of each episode."""
    return np.add.reduceat(self.reward_T, self.end_N - self.size_N)

  @property
  def return_to_go_T(self) -> np.ndarray:
    """Sum of the rewards from each step to the end of its episode."""
    so_far_T = np.cumsum(self.reward_T, dtype=np.float64)
    last_T = np.repeat(so_far_T[self.end_N - 1], self.size_N)
    return (last_T - so_far_T + self.reward_T).astype(np.float32)


def joined(parts: Sequence[Episodes]) -> Episodes:
  """Returns the episodes of all parts, in their order."""
  names = [field.name for field in dataclasses.fields(Episodes)]
  columns = ([getattr(part, name) for part in parts] for name in names)
  return Episodes(*map(np.concatenate, columns))


def gymnasium() -> Any:
  """Returns the package; raises DataError where it is not installed."""
  try:
    return importlib.import_module("gymnasium")
  except ImportError as error:
    raise DataError(
      "this task plays in Gymnasium's environments, and gymnasium is not installed:"
      " pip install 'gymnasium>=1.1' (this project's extra gymnasium)"
    ) from error


@functools.lru_cache(maxsize=32)
def sizes(environment: str) -> tuple[int, int]:
  """Returns the numbers of an observation, S, and of the actions.

  Raises DataError for an unknown environment, one whose observations are no vectors, or
  one with actions other than 0, 1, ...
  """
  known = gymnasium().registry
  if environment not in known:
    raise DataError(
      f"Gymnasium has no environment '{environment}'.{nearest(environment, known)}"
      " Write its id, as in 'CartPole-v1'; one of your own is registered by the file of"
      " a policy that the task names"
    )
  try:
    one = gymnasium().make(environment)
  except Exception as error:  # such as a package that an environment needs
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    raise DataError(f"environment '{environment}' cannot be made: {line}") from error
  seen, done = one.observation_space, one.action_space
  one.close()
  if not hasattr(done, "n") or int(getattr(done, "start", 0)):
    raise DataError(
      f"the actions of '{environment}' are {done}, and only discrete ones from 0 can be"
      " predicted; use an environment such as 'CartPole-v1'"
    )
  if seen.shape is None or len(seen.shape) != 1:
    raise DataError(
      f"the observations of '{environment}' are {seen}, and only vectors can be read;"
      " use an environment such as 'CartPole-v1'"
    )
  return int(seen.shape[0]), int(done.n)


def play(environment: str, act: Act, seeds: Sequence[int]) -> Episodes:
  """Returns one episode of each seed, played to its end by all copies at once.

  act     returns the action of each copy, from its observation and the reward of its
          last action; called until the last copy has ended, and what it returns for
          copies that have ended is ignored
  seeds   of the copies' first states
  """
  copies = gymnasium().make_vec(
    environment, num_envs=len(seeds), vectorization_mode="sync"
  )
  observation_NS, _ = copies.reset(seed=[int(seed) for seed in seeds])
  N = len(seeds)
  reward_N, runs_N = np.zeros(N), np.ones(N, bool)
  steps: list[tuple[np.ndarray, ...]] = []
  while runs_N.any():
    action_N = np.asarray(act(observation_NS, reward_N))
    before_NS = observation_NS.astype(np.float32)  # a copy: the array is written again
    observation_NS, reward_N, ended_N, cut_N, _ = copies.step(action_N)
    reward_N = np.where(runs_N, reward_N, 0.0)
    steps.append((before_NS, action_N, reward_N, runs_N))
    runs_N = runs_N & ~(ended_N | cut_N)
  copies.close()
  observation, action, reward, runs = (
    np.stack(column, axis=1) for column in zip(*steps, strict=True)
  )
  return Episodes(
    observation[runs],
    action[runs].astype(np.int32),
    reward[runs].astype(np.float32),
    runs.sum(axis=1),
  )
