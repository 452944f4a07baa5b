"""Base class of scripted policies, and their registry."""

import dataclasses
from typing import ClassVar

import numpy as np

from transformer_jax.spec import Registry, SpecError


@dataclasses.dataclass(frozen=True)
class Policy:
  """Base class of policies: an action for each observation, by a rule.

  noise          chance that a step has a random action instead of the policy's
  environments   Gymnasium ids of the environments that it is written for; (): any

  >>> import dataclasses
  >>> @dataclasses.dataclass(frozen=True)
  ... class Left(Policy):
  ...   def actions(self, observation_NS):
  ...     return np.zeros(len(observation_NS), int)
  >>> Left(noise=0.0).act(np.random.default_rng(0), np.zeros((3, 4)), 2).tolist()
  [0, 0, 0]
  """

  noise: float = 0.0
  environments: ClassVar[tuple[str, ...]] = ()

  def __post_init__(self):
    if not 0 <= self.noise <= 1:
      raise SpecError(f"noise={self.noise}: write a number from 0 to 1")

  def actions(self, observation_NS: np.ndarray) -> np.ndarray:
    """Returns the action of each of N episodes, int [N], without noise."""
    raise NotImplementedError

  def act(
    self, rng: np.random.Generator, observation_NS: np.ndarray, count: int
  ) -> np.ndarray:
    """Returns the action of each episode, random ones included.

    rng     of the random actions
    count   number of actions that the environment has
    """
    N = len(observation_NS)
    random_N = rng.random(N) < self.noise
    drawn_N = rng.integers(0, count, N)
    return np.where(random_N, drawn_N, self.actions(observation_NS))


policies = Registry("policy", Policy)
