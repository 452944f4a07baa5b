"""Energy pumping of a double pendulum with a motor between its links.

Spong, 1995. https://doi.org/10.1109/37.341864
"""

import dataclasses
from typing import ClassVar

import numpy as np

from transformer_jax.data.control.base import Policy, policies


@policies.register("swing_up")
@dataclasses.dataclass(frozen=True)
class SwingUp(Policy):
  """Turns the second link against the swing of the first, which gains energy.

  >>> still = [1.0, 0.0, 1.0, 0.0]  # cosines and sines of both angles
  >>> SwingUp().actions(np.array([[*still, 0.5, 0.0], [*still, -0.5, 0.0]])).tolist()
  [0, 2]
  """

  environments: ClassVar[tuple[str, ...]] = ("Acrobot-v1",)

  def actions(self, observation_NS):
    return np.where(observation_NS[:, 4] > 0, 0, 2)
