"""NTK-aware interpolation. bloc97, 2023, in Peng et al. https://arxiv.org/abs/2309.00071"""

import dataclasses

import numpy as np

from transformer_jax.positions.base import positions
from transformer_jax.positions.rope import ScaledRope


@positions.register("rope_ntk")
@dataclasses.dataclass(frozen=True)
class NtkRope(ScaledRope):
  """Raises the base of RoPE so that only the slowest pair is fully interpolated.

      base' = base factor^(K / (K - 2))

  The fastest pair keeps its frequency, the slowest is divided by the factor.

  >>> import transformer_jax as tj
  >>> rope, ntk = map(tj.positions.build, ("rope", "rope_ntk(factor=8)"))
  >>> (rope.frequencies({}, 4) / ntk.frequencies({}, 4)).round(3).tolist()
  [1.0, 2.0, 4.0, 8.0]
  """

  def frequencies(self, params, R):
    return super().frequencies(params, R) / divisors(self.factor, R)


def divisors(factor, R):
  """Returns the divisors of the frequencies of R pairs, from 1 to the factor."""
  return factor ** (np.arange(R) / max(R - 1, 1))
