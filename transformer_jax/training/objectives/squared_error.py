"""Squared error of numbers."""

import dataclasses

import jax.numpy as jnp

from transformer_jax.training.objectives.base import RegressionObjective, objectives


@objectives.register("squared_error")
@dataclasses.dataclass(frozen=True)
class SquaredError(RegressionObjective):
  """Squared error; the best output is the mean of what may follow.

  >>> output_BLNP, target_BLN = jnp.array([[[[3.0]]]]), jnp.array([[[1.0]]])
  >>> SquaredError().number_losses(output_BLNP, target_BLN).tolist()
  [[[4.0]]]
  """

  def number_losses(self, outputs_BLNP, target_BLN):
    return jnp.square(outputs_BLNP[..., 0] - target_BLN)
