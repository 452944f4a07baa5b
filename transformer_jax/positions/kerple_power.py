"""KERPLE with a power. Chi et al., 2022. https://arxiv.org/abs/2205.09921"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.positions.base import PositionalEncoding, positions
from transformer_jax.positions.kerple_log import LEAST, within


@positions.register("kerple_power")
@dataclasses.dataclass(frozen=True)
class KerplePower(PositionalEncoding):
  """Penalizes a score by -weight |i - j|^exponent, both learned by each head.

      s_ij = q_i . k_j / sqrt(K) - r_1 |i - j|^r_2

  per_layer   False: all layers share the parameters, as in the authors' code

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> bias = jax.jit(tj.positions.build("kerple_power").bias)
  >>> b_LM = bias({"weight_H": 0.5, "exponent_H": 2.0}, np.array([4]), np.arange(4))
  >>> print(np.asarray(b_LM).round(2))
  [[-8.  -4.5 -2.  -0.5]]
  """

  per_layer: bool = dataclasses.field(default=False, kw_only=True)
  extrapolation = "decays"

  def init(self, key, dims):
    keys = jax.random.split(key)
    return {
      "weight_H": jax.random.uniform(keys[0], (dims.H,)),
      "exponent_H": 2 * jax.random.uniform(keys[1], (dims.H,)),
    }

  def bias(self, params, pos_L, pos_M):
    distance_LM = jnp.abs(pos_L[:, None] - pos_M[None, :]).astype(jnp.float32)
    exponent = within(params["exponent_H"], LEAST, 2.0)
    return -within(params["weight_H"], LEAST) * distance_LM**exponent
