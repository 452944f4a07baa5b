"""Sharper attention in texts longer than in training. Wang et al., 2024.

https://arxiv.org/abs/2404.12224
"""

import dataclasses

import jax.numpy as jnp

from transformer_jax.positions.base import PositionalEncoding, positions, shorter
from transformer_jax.positions.shared.tempered import Tempered, text_length


@positions.register("nope_scaled")
@dataclasses.dataclass(frozen=True)
class NopeScaled(Tempered):
  """Multiplies queries by 1 + slope * log(length / trained length), 1 in short texts.

      s_ij = (1 + slope ln(L / L_train)) q_i . k_j / sqrt(K), L > L_train

  The length is that of the whole text, one for all its tokens.

  encoding   any encoding; the paper has none
  slope      0.3973 fits the paper's model of 50 000 steps, 0.3010 that of 10 000
  trained    the trained length in tokens; None: the length of training sequences

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> at = tj.positions.coords.consecutive(1, 16)
  >>> factor = jax.jit(tj.positions.build("nope_scaled").factor)
  >>> for trained in 4.0, 8.0, 16.0, 32.0:
  ...   print(trained, np.ravel(factor({"trained": trained}, at, at))[0].round(3))
  4.0 1.551
  8.0 1.275
  16.0 1.0
  32.0 1.0
  """

  encoding: PositionalEncoding = PositionalEncoding()
  slope: float = 0.3973
  trained: int | None = None
  needs_full_text = True

  def constants(self, dims):
    return self.encoding.constants(dims) | {"trained": jnp.float32(dims.L)}

  def stable_length(self, dims):
    return shorter(self.trained or dims.L, self.encoding.stable_length(dims))

  def factor(self, params, q_at, k_at):
    times_BL11 = text_length(q_at, k_at) / (self.trained or params["trained"])
    return 1 + self.slope * jnp.log(jnp.maximum(times_BL11, 1))
