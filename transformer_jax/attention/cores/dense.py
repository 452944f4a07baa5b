"""Attention with all scores in memory: the definition. Vaswani et al., 2017.

https://arxiv.org/abs/1706.03762
"""

import dataclasses

from transformer_jax.attention.cores.base import (
  PLAIN,
  Core,
  cores,
  mix,
  repeat_heads,
  require,
  tile_scores,
)


@cores.register("dense")
@dataclasses.dataclass(frozen=True)
class Dense(Core):
  """Computes every score, then the weights, then the mixture."""

  def __call__(
    self,
    q_BLHK,
    k_BMGK,
    v_BMGE,
    q_at,
    k_at,
    position,
    scale=None,
    variant=PLAIN,
    drop=None,
  ):
    require(self, position, variant, drop)
    scale = q_BLHK.shape[-1] ** -0.5 if scale is None else scale
    k_BMHK, v_BMHE = (repeat_heads(x, q_BLHK.shape[2]) for x in (k_BMGK, v_BMGE))
    mask_BLM = variant.attends(position, q_at, k_at)
    tile = q_BLHK, k_BMHK, q_at, k_at
    s_BHLM = tile_scores(*tile, position, scale, mask_BLM, variant)
    s_BHLM = position.full_scores(s_BHLM, *tile, mask_BLM, scale)
    w_BHLM = variant.weigh(variant.logits(s_BHLM), mask_BLM)
    w_BHLM = drop(w_BHLM) if drop else w_BHLM
    return mix(w_BHLM, v_BMHE, q_at.pos_BL, k_at.pos_BL, position).astype(v_BMHE.dtype)

  def refusal(self, encoding, variant=PLAIN.variant, drop=False):
    return variant.refusal(encoding)
