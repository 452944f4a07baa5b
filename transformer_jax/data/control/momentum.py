"""Energy pumping of a car that is too weak for its hill. Moore, 1990.

https://www.cl.cam.ac.uk/techreports/UCAM-CL-TR-209.html
"""

import dataclasses
from typing import ClassVar

import numpy as np

from transformer_jax.data.control.base import Policy, policies


@policies.register("momentum")
@dataclasses.dataclass(frozen=True)
class Momentum(Policy):
  """Pushes into the direction in which the car moves, so that each swing is larger.

  >>> Momentum().actions(np.array([[-0.5, 0.01], [-0.5, -0.01]])).tolist()
  [2, 0]
  """

  environments: ClassVar[tuple[str, ...]] = ("MountainCar-v0",)

  def actions(self, observation_NS):
    return np.where(observation_NS[:, 1] >= 0, 2, 0)
