"""Context-aware rotary embedding. Veisi et al., 2025. https://arxiv.org/abs/2507.23083"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.matmul import einsum
from transformer_jax.positions.base import PositionalEncoding, positions
from transformer_jax.positions.rope import Rope, turn_pairs
from transformer_jax.positions.shared.sums import of_tokens, running, turns


@positions.register("carope")
@dataclasses.dataclass(frozen=True)
class Carope(PositionalEncoding):
  """Rotates by cumulative angles whose steps are computed from each token, per head.

      angle_m(i) = sum over t <= i of r_t^(m + 1), r_t = the rate of token t

  A token's rate is between 0 and 1; pair m = 0, 1, ... turns by the
  rate to the power of m + 1. A rate that never changes is RoPE with other frequencies.

  interleaved   pairs are neighbours (2m, 2m + 1); else halves (m, m + K/2)

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> at = tj.positions.coords.consecutive(1, 3)
  >>> data = {"rate_BLH": np.array([[[0.5], [0.5], [1.0]]])}
  >>> accumulate = jax.jit(tj.positions.build("carope").accumulate)
  >>> print(accumulate({"power_R": np.array([1, 2])}, data, at)["angle_BLHR"][0, :, 0])
  [[0.5  0.25]
   [1.   0.5 ]
   [2.   1.5 ]]
  """

  interleaved: bool = False
  per_layer = True

  def init(self, key, dims):
    # The paper does not say how it starts.
    return {"rate_DH": 0.02 * jax.random.normal(key, (dims.D, dims.H))}

  def constants(self, dims):
    R = Rope().pairs(dims.K)
    return {"power_R": jnp.arange(1, R + 1, dtype=jnp.float32)}

  def token_data(self, params, x_BLD, q_BLHK):
    logit_BLH = einsum("BLD,DH->BLH", x_BLD.astype(jnp.float32), params["rate_DH"])
    return {"rate_BLH": 1 / (jax.nn.softplus(logit_BLH) + 1)}

  def accumulate(self, params, data, at):
    # Only differences within a text count, so sums may run on through other texts.
    rate_BLHR = data["rate_BLH"][..., None] ** params["power_R"]
    return {"angle_BLHR": turns(*running(of_tokens(rate_BLHR, at)))}

  def transform_qk(self, params, q_BLHK, k_BMHK, q_at, k_at):
    def turn(x, at):
      return turn_pairs(x, at.data["angle_BLHR"], self.interleaved)

    return turn(q_BLHK, q_at), turn(k_BMHK, k_at)
