"""Inkling's relative bias. Thinking-Machines, 2026.

https://huggingface.co/thinkingmachines/Inkling
"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.forwarding import computed
from transformer_jax.matmul import einsum
from transformer_jax.positions.base import PositionalEncoding, positions
from transformer_jax.positions.shared import relative


@positions.register("inkling")
@dataclasses.dataclass(frozen=True)
class Inkling(PositionalEncoding):
  """Adds a mixture of a few learned curves of the distance, weighted by the query.

      s_ij = q_i . k_j / sqrt(K) + sum over n of r_n(x_i) C[n, i - j]

  All heads of a layer share the curves. Past their end the bias is zero.

  width     number of curves
  max_distance   distances below it have a bias
  floor     from this many tokens on, scores of the query at place n are multiplied by
            1 + 0.1 ln(n / floor); None: never, as in the layers with a window

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> tile = tj.positions.Tile(
  ...   q_LK=None, k_MK=None, pos_L=np.array([4]), pos_M=np.arange(5), mask_LM=None,
  ...   q_data={"weight_BLHW": np.ones((1, 1))}, k_data={}, scale=1.0,
  ... )
  >>> score = jax.jit(tj.positions.build("inkling(width=1, max_distance=3)").score)
  >>> print(score({"bank_WN": np.array([[0.3, 0.2, 0.1]])}, np.zeros((1, 5)), tile))
  [[0.  0.  0.1 0.2 0.3]]
  """

  width: int = 16
  max_distance: int = 1024
  floor: int | None = None
  per_layer = True
  integer_positions = True
  extrapolation = "zero past max_distance"

  @computed
  def relative(self):
    return self.floor is None

  def init(self, key, dims):
    keys, W = jax.random.split(key), self.width
    return {
      "weigh_DHW": jax.random.normal(keys[0], (dims.D, dims.H, W)) * dims.D**-0.5,
      "bank_WN": 0.02 * jax.random.normal(keys[1], (W, self.max_distance)),
    }

  def bidirectional(self):
    raise ValueError(
      "inkling has curves of the distance back to the key and has no meaning for keys"
      " in the future; use it in a decoder"
    )

  def token_data(self, params, x_BLD, q_BLHK):
    x_BLD = x_BLD.astype(jnp.float32)
    return {"weight_BLHW": einsum("BLD,DHW->BLHW", x_BLD, params["weigh_DHW"])}

  def temperature(self, params, at):
    return self._heat(at.pos_BL)[:, :, None, None]

  def prepare(self, params, q_at, k_at):
    return params | relative.READY, q_at, k_at

  def score(self, params, s_LM, tile):
    def row(back):
      return jnp.clip(back, 0, self.max_distance - 1)

    bank_NW, weight_LW = params["bank_WN"].T, tile.q_data["weight_BLHW"]
    match = relative.matcher(params)
    found_LM = match(row, bank_NW, weight_LW, tile.pos_L, tile.pos_M)
    back_LM = tile.pos_L[:, None] - tile.pos_M[None, :]
    inside_LM = (back_LM >= 0) & (back_LM < self.max_distance)
    return s_LM + self._heat(tile.pos_L)[:, None] * jnp.where(inside_LM, found_LM, 0.0)

  def _heat(self, pos_L):
    if self.floor is None:
      return jnp.ones(pos_L.shape)
    return 1 + 0.1 * jnp.log(jnp.maximum((pos_L + 1) / self.floor, 1.0))
