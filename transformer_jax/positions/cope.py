"""Contextual position encoding. Golovneva et al., 2024. https://arxiv.org/abs/2405.18719"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.positions.base import PositionalEncoding, positions


@positions.register("cope")
@dataclasses.dataclass(frozen=True)
class CoPE(PositionalEncoding):
  """Uses as position a gated count of the tokens from the key up to the query.

      p_ij = min(N - 1, sum over j <= t <= i of sigmoid(q_i . k_t / sqrt(K)))
      s_ij = q_i . k_j / sqrt(K) + q_i . E[p_ij]

  A token counts by the sigmoid of its score. Queries are matched with learned vectors
  of the count, and with mixtures of two of them where it is not whole. All heads of a
  layer share the vectors.

  max_positions   rows of the table: counts from max_positions - 1 on share the last one

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> s_HLM = np.array([[[9.0, -9, -9, 9]]])  # gates of 1, 0, 0, 1
  >>> tile = tj.positions.Tile(
  ...   q_LK=np.ones((1, 1, 1)), k_MK=None, pos_L=None, pos_M=None,
  ...   mask_LM=np.ones((1, 4), bool), q_data={}, k_data={}, scale=1.0,
  ... )
  >>> params = {"table_NK": np.array([[0.0], [1], [2], [3]])}
  >>> full_scores = jax.jit(tj.positions.build("cope(max_positions=4)").full_scores)
  >>> print(np.asarray(full_scores(params, s_HLM, tile) - s_HLM).round(2))
  [[[2. 1. 1. 1.]]]
  """

  max_positions: int = 64
  per_layer = True
  extrapolation = "last row"

  def init(self, key, dims):
    return {"table_NK": jnp.zeros((self.max_positions, dims.K))}

  def bidirectional(self):
    raise ValueError(
      "cope counts tokens from the key forward to the query and has no meaning for keys"
      " in the future; use it in a decoder"
    )

  def full_scores(self, params, s_HLM, tile):
    gate_HLM = jnp.where(tile.mask_LM, jax.nn.sigmoid(s_HLM), 0.0)
    count_HLM = jax.lax.cumsum(gate_HLM, axis=2, reverse=True)
    count_HLM = jnp.minimum(count_HLM, self.max_positions - 1)
    below_HLM, above_HLM = jnp.floor(count_HLM), jnp.ceil(count_HLM)
    # Matches first: no array of [L, M, K] is ever made.
    match_HLN = tile.q_LK.astype(jnp.float32) @ params["table_NK"].T

    def find(n_HLM):
      return jnp.take_along_axis(match_HLN, n_HLM.astype(jnp.int32), axis=2)

    share_HLM = count_HLM - below_HLM
    return s_HLM + share_HLM * find(above_HLM) + (1 - share_HLM) * find(below_HLM)
