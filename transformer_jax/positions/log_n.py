"""Scalable softmax: scores times log n. Nakanishi, 2025.

https://arxiv.org/abs/2501.19399
"""

import dataclasses
import math

import jax.numpy as jnp

from transformer_jax.forwarding import computed
from transformer_jax.positions.base import PositionalEncoding, positions
from transformer_jax.positions.shared.tempered import Tempered, tokens_in_horizon


@positions.register("log_n")
@dataclasses.dataclass(frozen=True)
class LogN(Tempered):
  """Multiplies the query of n keys by s log n, s learned in each head and layer.

      s_ij = (s ln n) q_i . k_j / sqrt(K),
        n = tokens of its text up to query i's horizon

  Initially the factor is 1 on average over the positions of a training text: s = 0.168
  for 1024 tokens.

  encoding   any encoding
  learned    False: log n / log of the training length, as in Chiang and Cholak, 2022,
             https://arxiv.org/abs/2202.12172

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> at = tj.positions.coords.consecutive(1, 16)
  >>> log_n = tj.positions.build("log_n(learned=False)")
  >>> factor_L = np.ravel(jax.jit(log_n.factor)({"trained": 4.0}, at, at))
  >>> print(factor_L[[1, 3, 7, 15]].round(2))  # of 2, 4, 8 and 16 keys
  [0.5 1.  1.5 2. ]
  """

  encoding: PositionalEncoding = PositionalEncoding()
  learned: bool = True

  @computed
  def per_layer(self):
    return self.learned or self.encoding.per_layer

  def in_layer(self, name):
    return name == "sharpness_H" or self.encoding.in_layer(name)

  def init(self, key, dims):
    params = self.encoding.init(key, dims)
    if not self.learned:
      return params
    mean = math.lgamma(max(dims.L, 2) + 1) / max(dims.L, 2)
    return params | {"sharpness_H": jnp.full(dims.H, 1 / mean)}

  def constants(self, dims):
    return self.encoding.constants(dims) | {"trained": jnp.float32(dims.L)}

  def factor(self, params, q_at, k_at):
    log_BL11 = jnp.log(tokens_in_horizon(q_at, k_at).astype(jnp.float32))
    if self.learned:
      return log_BL11 * params["sharpness_H"][:, None]
    return log_BL11 / jnp.log(jnp.maximum(params["trained"], 2))
