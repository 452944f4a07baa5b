"""Contextual position encoding. Golovneva et al., 2024. https://arxiv.org/abs/2405.18719"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.positions.base import PositionalEncoding, positions
from transformer_jax.positions.shared.text_by_text import text_by_text


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
    # Matches first: no array of [L, M, K] is ever made.
    match_HLN = tile.q_LK.astype(jnp.float32) @ params["table_NK"].T
    return s_HLM + interpolated(match_HLN, count_HLM)


@jax.custom_vjp
def interpolated(match_HLN: jax.Array, count_HLM: jax.Array) -> jax.Array:
  """Returns the matches of counts from 0 to N - 1, linear between whole numbers.

  The gradient of matches is a sum over counts, by the whole number below each. At whole
  numbers that of counts is zero.
  """
  return text_by_text(_between)(match_HLN, count_HLM)


def _between(match_HLN, count_HLM):
  place_HLM, share_HLM = _below(match_HLN, count_HLM)
  return match_HLN.ravel()[place_HLM] + share_HLM * _steps(match_HLN)[place_HLM]


def _save(*given):
  return interpolated(*given), given


def _pull(given, d_HLM):
  return text_by_text(_backward)(*given, d_HLM)


def _backward(match_HLN, count_HLM, d_HLM):
  place_HLM, share_HLM = _below(match_HLN, count_HLM)
  step_HLM = jnp.where(share_HLM > 0, _steps(match_HLN)[place_HLM], 0.0)
  none_n, at = jnp.zeros(match_HLN.size), place_HLM.ravel()

  def summed(x_HLM):
    return none_n.at[at].add(x_HLM.ravel()).reshape(match_HLN.shape)

  above_HLN = summed(d_HLM * share_HLM)
  to_next_HLN = jnp.pad(above_HLN, ((0, 0), (0, 0), (1, 0)))[..., :-1]
  return summed(d_HLM) - above_HLN + to_next_HLN, d_HLM * step_HLM


interpolated.defvjp(_save, _pull)


def _below(match_HLN, count_HLM):
  """Returns places of the whole numbers below, in all matches, and what is above."""
  H, L, N = match_HLN.shape
  below_HLM = jnp.floor(count_HLM)
  row_HL1 = jnp.arange(H * L, dtype=jnp.int32).reshape(H, L, 1)
  return row_HL1 * N + below_HLM.astype(jnp.int32), count_HLM - below_HLM


def _steps(match_HLN):
  """Returns what is added from each match to the next one; zero after the last."""
  return jnp.diff(match_HLN, append=match_HLN[..., -1:]).ravel()
