"""KERPLE with a logarithm. Chi et al., 2022. https://arxiv.org/abs/2205.09921"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.positions.base import PositionalEncoding, positions

LEAST = 0.01  # lower bound of the kernels' parameters


@positions.register("kerple_log")
@dataclasses.dataclass(frozen=True)
class KerpleLog(PositionalEncoding):
  """Penalizes a score by -weight ln(1 + rate |i - j|), both learned by each head.

      s_ij = q_i . k_j / sqrt(K) - r_1 ln(1 + r_2 |i - j|)

  exponent    learn an exponent of |i - j| too, from 1 (the three-parameter kernel)
  per_layer   False: all layers share the parameters, as in the authors' code

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> bias = jax.jit(tj.positions.build("kerple_log").bias)
  >>> b_LM = bias({"weight_H": 1.0, "rate_H": 1.0}, np.array([4]), np.arange(4))
  >>> print(np.asarray(b_LM).round(2))
  [[-1.61 -1.39 -1.1  -0.69]]
  """

  exponent: bool = False
  per_layer: bool = dataclasses.field(default=False, kw_only=True)
  extrapolation = "decays"

  def init(self, key, dims):
    keys = jax.random.split(key)
    params = {
      "weight_H": 2 * jax.random.uniform(keys[0], (dims.H,)),
      "rate_H": jax.random.uniform(keys[1], (dims.H,)),
    }
    return params | ({"exponent_H": jnp.ones(dims.H)} if self.exponent else {})

  def bias(self, params, pos_L, pos_M):
    grown_LM = jnp.abs(pos_L[:, None] - pos_M[None, :]).astype(jnp.float32)
    if self.exponent:
      grown_LM **= within(params["exponent_H"], LEAST, 2.0)
    rate = within(params["rate_H"], LEAST)
    return -within(params["weight_H"], LEAST) * jnp.log1p(rate * grown_LM)


def within(x: jax.Array, low: float, high: float = jnp.inf) -> jax.Array:
  """Returns a clamped parameter with the gradient of the identity.

  So it can leave the bound again. The authors write the clamped value back into the
  parameter.
  """
  used = jax.lax.stop_gradient(jnp.clip(x, low, high))
  return used + (x - jax.lax.stop_gradient(x))
