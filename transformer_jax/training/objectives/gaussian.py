"""Gaussian likelihood of numbers. Nix and Weigend, 1994.

https://doi.org/10.1109/ICNN.1994.374138
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from transformer_jax.training.objectives.base import RegressionObjective, objectives


@objectives.register("gaussian")
@dataclasses.dataclass(frozen=True)
class Gaussian(RegressionObjective):
  """Negative log likelihood, in nats, of a normal distribution for each number.

      loss = (y - mean)^2 / (2 s^2) + log s + log(2 pi) / 2

  A number has two outputs: the mean, which is what the model says, and one whose
  softplus, with a small number added, is the standard deviation s.

  least   added to the standard deviation: the likelihood has no upper bound without

  >>> raw = math.log(math.expm1(1.0 - 1e-3))  # whose softplus is 0.999
  >>> outputs_BLNP = jnp.array([[[[0.0, raw]]]])
  >>> loss_BLN = Gaussian().number_losses(outputs_BLNP, jnp.zeros((1, 1, 1)))
  >>> round(float(loss_BLN[0, 0, 0]), 4)  # of a standard normal distribution at 0
  0.9189
  """

  least: float = 1e-3
  per_number = 2

  def number_losses(self, outputs_BLNP, target_BLN):
    mean_BLN, raw_BLN = outputs_BLNP[..., 0], outputs_BLNP[..., 1]
    deviation_BLN = jax.nn.softplus(raw_BLN) + self.least
    z_BLN = (target_BLN - mean_BLN) / deviation_BLN
    constant = math.log(2 * math.pi) / 2
    return jnp.square(z_BLN) / 2 + jnp.log(deviation_BLN) + constant
