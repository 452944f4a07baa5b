"""Proportional-derivative control of a pole on a cart.

Barto, Sutton and Anderson, 1983, for the problem.
https://doi.org/10.1109/TSMC.1983.6313077
"""

import dataclasses
from typing import ClassVar

import numpy as np

from transformer_jax.data.control.base import Policy, policies


@policies.register("pd")
@dataclasses.dataclass(frozen=True)
class ProportionalDerivative(Policy):
  """Pushes to the side to which a weighted sum of place, angle and speeds points.

  Without noise it holds the pole for all 500 steps of CartPole-v1.

  gains   of the cart's place and speed, and the pole's angle and speed

  >>> observation_NS = np.array([[0.0, 0.0, 0.1, 0.0], [0.0, 0.0, 0.1, -1.0]])
  >>> ProportionalDerivative().actions(observation_NS).tolist()
  [1, 0]
  """

  gains: tuple[float, float, float, float] = (0.1, 0.2, 1.0, 0.3)
  environments: ClassVar[tuple[str, ...]] = ("CartPole-v1",)

  def actions(self, observation_NS):
    return (observation_NS @ np.array(self.gains) > 0).astype(int)
