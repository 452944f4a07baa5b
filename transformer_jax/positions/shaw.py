"""Relative keys and values. Shaw et al., 2018. https://arxiv.org/abs/1803.02155"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.positions.base import PositionalEncoding, positions


@positions.register("shaw")
@dataclasses.dataclass(frozen=True)
class Shaw(PositionalEncoding):
  """Adds a learned vector of the clipped distance to each key and each value.

      s_ij = q_i . (k_j + A[clip(j - i)]) / sqrt(K); o_i = sum over j of w_ij (v_j +
        B[clip(j - i)])

  max_distance   distances beyond it, either way, share one vector; tables have rows of
             future distances even in causal models, so they fit every architecture

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> tile = tj.positions.Tile(
  ...   q_LK=np.ones((1, 1)), k_MK=None, pos_L=np.array([3]), pos_M=np.arange(5),
  ...   mask_LM=None, q_data={}, k_data={}, scale=1.0,
  ... )
  >>> params = {"key_NK": np.array([[0.1], [0.2], [0.3], [0.4], [0.5]])}
  >>> score = jax.jit(tj.positions.build("shaw(max_distance=2)").score)
  >>> print(score(params, np.zeros((1, 5)), tile))
  [[0.1 0.1 0.2 0.3 0.4]]
  """

  max_distance: int = 16
  per_layer = True
  integer_positions = True
  extrapolation = "clipped at max_distance"

  def init(self, key, dims):
    keys = jax.random.split(key)
    shape = (2 * self.max_distance + 1, dims.K)
    return {
      "key_NK": 0.02 * jax.random.normal(keys[0], shape),
      "value_NK": 0.02 * jax.random.normal(keys[1], shape),
    }

  def score(self, params, s_LM, tile):
    match_LN = tile.q_LK.astype(jnp.float32) @ params["key_NK"].T
    row_LM = self._row(tile.pos_L, tile.pos_M)
    return s_LM + tile.scale * jnp.take_along_axis(match_LN, row_LM, axis=1)

  def values(self, params, w_LM, pos_L, pos_M):
    # Weights of one distance are summed first: no array of [L, M, K] is ever made.
    start_N = jnp.zeros(2 * self.max_distance + 1, w_LM.dtype)

    def add(row_M, w_M):
      return start_N.at[row_M].add(w_M)

    w_LN = jax.vmap(add)(self._row(pos_L, pos_M), w_LM)
    return w_LN @ params["value_NK"].astype(w_LM.dtype)

  def _row(self, pos_L, pos_M):
    ahead_LM = pos_M[None, :] - pos_L[:, None]
    return (
      jnp.clip(ahead_LM, -self.max_distance, self.max_distance) + self.max_distance
    ).astype(jnp.int32)
