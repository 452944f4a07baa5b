"""Random actions, the floor of every control problem."""

import dataclasses

import numpy as np

from transformer_jax.data.control.base import Policy, policies


@policies.register("random")
@dataclasses.dataclass(frozen=True)
class RandomActions(Policy):
  """All actions alike in each step.

  >>> drawn = RandomActions().act(np.random.default_rng(0), np.zeros((1000, 4)), 2)
  >>> round(float(drawn.mean()), 1)
  0.5
  """

  noise: float = 1.0

  def actions(self, observation_NS):
    return np.zeros(len(observation_NS), int)
