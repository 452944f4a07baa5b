"""Attention with all scores in memory: the definition. Vaswani et al., 2017.

https://arxiv.org/abs/1706.03762
"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.attention.base import MASKED, cores, mix, tile_scores, visible


@cores.register("dense")
@dataclasses.dataclass(frozen=True)
class Dense:
  """Computes every score, then the softmax, then the mixture."""

  def __call__(self, q_BLHK, k_BMHK, v_BMHK, q_at, k_at, position, scale=None):
    scale = q_BLHK.shape[-1] ** -0.5 if scale is None else scale
    seen_BLM = visible(q_at, k_at)
    s_BHLM = tile_scores(q_BLHK, k_BMHK, q_at, k_at, position, scale, seen_BLM)
    s_BHLM = position.rows(s_BHLM, q_BLHK, k_BMHK, q_at, k_at, seen_BLM, scale)
    w_BHLM = softmax(s_BHLM, seen_BLM[:, None])
    return mix(w_BHLM, v_BMHK, q_at.pos_BL, k_at.pos_BL, position).astype(v_BMHK.dtype)

  def refusal(self, encoding):
    return None


def softmax(s_BHLM: jax.Array, seen_B1LM: jax.Array) -> jax.Array:
  """Returns weights over the keys that are seen; a row that sees none is zero."""
  s_BHLM = jnp.where(seen_B1LM, s_BHLM, MASKED)
  w_BHLM = jax.nn.softmax(s_BHLM, axis=-1)
  return w_BHLM * jnp.any(seen_B1LM, axis=-1, keepdims=True)
