"""Position interpolation. Chen et al., 2023. https://arxiv.org/abs/2306.15595"""

import dataclasses

from transformer_jax.positions.base import positions
from transformer_jax.positions.rope import ScaledRope


@positions.register("rope_linear")
@dataclasses.dataclass(frozen=True)
class LinearRope(ScaledRope):
  """Divides every frequency of RoPE by the factor, and so all positions.

      theta_m = base^(-2 m / K) / factor

  A text `factor` times as long as in training then stays within the phases of training.

  >>> import transformer_jax as tj
  >>> tj.positions.build("rope").frequencies({}, 4).round(4).tolist()
  [1.0, 0.1, 0.01, 0.001]
  >>> tj.positions.build("rope_linear(factor=4)").frequencies({}, 4).round(5).tolist()
  [0.25, 0.025, 0.0025, 0.00025]
  """

  def frequencies(self, params, R):
    return super().frequencies(params, R) / self.factor
