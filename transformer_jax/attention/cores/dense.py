"""Attention with all scores in memory: the definition. Vaswani et al., 2017.

https://arxiv.org/abs/1706.03762
"""

import dataclasses

from transformer_jax.attention.cores.base import Core, cores, repeat_heads
from transformer_jax.attention.variants.bound_variant import PLAIN


@cores.register("dense")
@dataclasses.dataclass(frozen=True)
class Dense(Core):
  """Computes every score, then the weights, then the mixture.

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> at, zero_BLHK = tj.positions.coords.consecutive(1, 4), np.zeros((1, 4, 1, 2))
  >>> v_BMHE = np.arange(4.0).reshape(1, 4, 1, 1)
  >>> params = {"slope_H": np.array([np.log(2)])}  # halves the weight of each step back
  >>> alibi = tj.positions.Bound(tj.positions.build("alibi"), params)
  >>> dense = jax.jit(tj.cores.build("dense"))
  >>> out_BLHE = dense(zero_BLHK, zero_BLHK, v_BMHE, at, at, alibi)
  >>> print(np.ravel(out_BLHE).round(2))
  [0.   0.67 1.43 2.27]
  """

  def attend(self, q_BLHK, k_BMGK, v_BMGE, context):
    H = q_BLHK.shape[2]
    k_BMHK, v_BMHE = repeat_heads(k_BMGK, H), repeat_heads(v_BMGE, H)
    w_BHLM = self.weights(q_BLHK, k_BMHK, context)
    return context.mix(w_BHLM, v_BMHE).astype(v_BMHE.dtype)

  def weights(self, q_BLHK, k_BMHK, context):
    """Returns w_BHLM, float32: the weight of each key for each query."""
    mask_BLM = context.mask()
    s_BHLM = context.full_scores(q_BLHK, k_BMHK, mask_BLM)
    s_BHLM = context.logits(s_BHLM, q_BLHK, k_BMHK, mask_BLM)
    return context.weights(s_BHLM, context.selected(q_BLHK, k_BMHK, mask_BLM))

  def refusal(self, encoding, variant=PLAIN.variant, dropout=False):
    return variant.refusal(encoding)
