"""Quantiles of numbers. Koenker and Bassett, 1978. https://doi.org/10.2307/1913643"""

import dataclasses

import jax.numpy as jnp

from transformer_jax.spec import SpecError
from transformer_jax.training.objectives.base import RegressionObjective, objectives


@objectives.register("quantiles")
@dataclasses.dataclass(frozen=True)
class Quantiles(RegressionObjective):
  """Pinball loss of several quantiles of each number, the mean over them.

      loss = max(q (y - output), (q - 1) (y - output))

  The middle one of the levels is what the model says. With the level 0.5 alone the loss
  is half of the absolute error.

  levels   of the quantiles, from below to above

  >>> quantiles = objectives.build("quantiles((0.1, 0.5, 0.9))")
  >>> outputs_BLNP = jnp.array([[[[-1.0, 0.0, 1.0]]]])
  >>> loss_BLN = quantiles.number_losses(outputs_BLNP, jnp.full((1, 1, 1), 2.0))
  >>> round(float(loss_BLN[0, 0, 0]), 4)  # (0.1 * 3 + 0.5 * 2 + 0.9 * 1) / 3
  0.7333
  >>> quantiles.predicted(outputs_BLNP.reshape(1, 1, 3)).tolist()
  [[[0.0]]]
  """

  levels: tuple[float, ...] = (0.1, 0.5, 0.9)

  def __post_init__(self):
    inside = all(0 < level < 1 for level in self.levels)
    if not self.levels or not inside or [*self.levels] != sorted({*self.levels}):
      raise SpecError(
        f"quantiles: levels are {self.levels}; write numbers between 0 and 1 that"
        " increase, as in (0.1, 0.5, 0.9)"
      )

  @property
  def per_number(self) -> int:
    return len(self.levels)

  def number_losses(self, outputs_BLNP, target_BLN):
    level_P = jnp.array(self.levels)
    above_BLNP = target_BLN[..., None] - outputs_BLNP
    pinball_BLNP = jnp.maximum(level_P * above_BLNP, (level_P - 1) * above_BLNP)
    return pinball_BLNP.mean(axis=-1)

  def points(self, outputs_BLNP):
    return outputs_BLNP[..., len(self.levels) // 2]
