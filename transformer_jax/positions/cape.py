"""Continuous augmented positions. Likhomanenko et al., 2021.

https://arxiv.org/abs/2106.03143
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from transformer_jax.positions.base import PositionalEncoding, positions
from transformer_jax.positions.interpolated import refuse_tables
from transformer_jax.positions.shared.wrapper import Wrapper
from transformer_jax.positions.sinusoidal import Sinusoidal


@positions.register("cape")
@dataclasses.dataclass(frozen=True)
class Cape(Wrapper):
  """Trains on randomly shifted, blurred and scaled positions.

      p' = scale (p + shift + noise_p), all three random in training

  Shift and scale are drawn for each row, noise for each token. In evaluation positions
  are unchanged. The paper also subtracts the mean position of a text; that is left out,
  because a decoder does not know the mean of a text that it still generates.

  encoding   any encoding that works between whole positions
  shift      the largest shift, either way
  noise      the largest noise, either way; up to 0.5 the tokens keep their order
  scale      the largest scale; the smallest is 1 / scale

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> at = tj.positions.coords.consecutive(1, 4)
  >>> cape = tj.positions.build("cape(sinusoidal)")
  >>> context = tj.positions.TrainContext(jax.random.key(0), batch_size=2)
  >>> pos_BL = jax.jit(cape.assign_positions)(context, at).pos_BL
  >>> print(np.asarray(pos_BL).round(1))
  [[ 3.   4.   5.6  6.4]
   [-3.5 -2.6 -1.6 -0.1]]
  """

  encoding: PositionalEncoding = Sinusoidal()
  shift: float = 5.0
  noise: float = 0.5
  scale: float = 1.03

  def __post_init__(self):
    super().__post_init__()
    refuse_tables("cape", self.encoding)
    if not (self.shift >= 0 and 0 <= self.noise <= 0.5 and self.scale >= 1):
      raise ValueError(
        f"cape has shift={self.shift}, noise={self.noise}, scale={self.scale}; shift"
        " must be 0 or more, noise from 0 to 0.5 so that tokens keep their order, and"
        " scale 1 or more"
      )

  def assign_positions(self, context, at):
    if context is None:
      return self.encoding.assign_positions(None, at)
    keys = jax.random.split(context.key, 3)

    def uniform(key, L, most):
      shape = context.batch_size, L
      return jax.random.uniform(key, shape, minval=-most, maxval=most)

    shift_B1 = uniform(keys[0], 1, self.shift)
    noise_BL = uniform(keys[1], at.pos_BL.shape[1], self.noise)
    scale_B1 = jnp.exp(uniform(keys[2], 1, math.log(self.scale)))
    pos_BL = scale_B1 * (at.pos_BL + shift_B1 + noise_BL)
    return self.encoding.assign_positions(context.inner(), at.replace(pos_BL=pos_BL))
