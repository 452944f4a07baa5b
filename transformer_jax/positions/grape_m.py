"""Group representational position encoding, multiplicative. Zhang et al., 2025.

https://arxiv.org/abs/2512.07805
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.positions.base import positions
from transformer_jax.positions.rope import Rope, middle
from transformer_jax.positions.shared.sums import of_tokens, running

SLOWLY = 16  # divides the learned parameters, so that frequencies move slowly


@positions.register("grape_m")
@dataclasses.dataclass(frozen=True)
class GrapeM(Rope):
  """Learns the frequencies of RoPE: commuting rotations in fixed planes.

      s_ij = q_i^T R(j - i) k_j / sqrt(K), R's frequencies learned

  per_head     frequencies differ between heads
  contextual   a position is the sum of learned steps of the tokens before it, each
               between 0 and 1, instead of their number

  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> grape_m = tj.positions.build("grape_m")
  >>> # A parameter is 16 times the logarithm of its frequency.
  >>> params = {"log_frequency_R": 16 * np.log([1, 0.5, 0.1])}
  >>> print(np.asarray(grape_m.frequencies(params, 3)).round(2))
  [1.  0.5 0.1]
  """

  per_head: bool = False
  contextual: bool = False
  per_layer = True
  centred = True

  def init(self, key, dims):
    R = self.pairs(dims.K)
    start_R = SLOWLY * jnp.log(jnp.asarray(super().frequencies({}, R), jnp.float32))
    params = {"log_frequency_R": start_R}
    if self.per_head:
      params = {"log_frequency_HR": jnp.tile(start_R, (dims.H, 1))}
    if self.contextual:
      # As in the authors' code: the initial step of a token is 0.39.
      params |= {"count_D": jnp.zeros(dims.D)}
      params |= {"count_shift": jnp.float32(np.log(np.expm1(1e-3)))}
    return params

  def frequencies(self, params, R):
    name = "log_frequency_HR" if self.per_head else "log_frequency_R"
    return jnp.exp(params[name] / SLOWLY)

  def token_data(self, params, x_BLD, q_BLHK):
    if not self.contextual:
      return {}
    logit_BL = x_BLD.astype(jnp.float32) @ params["count_D"] + params["count_shift"]
    return {"count_BL": jax.nn.sigmoid(logit_BL / SLOWLY)}

  def accumulate(self, params, data, at):
    if not self.contextual:
      return data
    # Only differences within a text count, so sums may run on through other texts.
    before_BL = jnp.pad(of_tokens(data["count_BL"], at), ((0, 0), (1, 0)))[:, :-1]
    return dict(zip(("count_BL", "count_low_BL"), running(before_BL), strict=True))

  def transform_qk(self, params, q_BLHK, k_BMHK, q_at, k_at):
    low_BL, low_BM = 0.0, 0.0
    if self.contextual:
      low_BL, low_BM = (at.data["count_low_BL"] for at in (q_at, k_at))
      q_at, k_at = (at.replace(pos_BL=at.data["count_BL"]) for at in (q_at, k_at))
    # Centred positions change no score. Gradients of frequencies are sums of positions,
    # whose rounding errors are smaller then.
    q_BL, k_BM = (at.pos_BL - middle(k_at) for at in (q_at, k_at))
    q_BL, k_BM = q_BL + low_BL, k_BM + low_BM
    return self.rotate(params, q_BLHK, q_BL), self.rotate(params, k_BMHK, k_BM)
