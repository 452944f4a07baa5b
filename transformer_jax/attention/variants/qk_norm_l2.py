"""Queries and keys of length one, and a learned factor. Henry et al., 2020.

https://arxiv.org/abs/2010.04245
"""

import dataclasses

import jax.numpy as jnp

from transformer_jax.attention.variants.base import Variant, attentions
from transformer_jax.attention.variants.cosine import unit


@attentions.register("qk_norm_l2")
@dataclasses.dataclass(frozen=True)
class QKNormL2(Variant):
  """Cosine scores times a learned number g of each layer.

      s_ij = g cos(q_i, k_j)

  It starts at log2(L^2 - L), where L is the length of training texts. The paper's L is
  the 97.5th percentile of lengths.
  """

  def init(self, key, dims):
    L = max(dims.L, 2)
    return {"factor": jnp.log2(jnp.asarray(L * L - L, jnp.float32))}

  def condition(self, params, q_BLHK, k_BMGK):
    return unit(q_BLHK), unit(k_BMGK)

  def scale(self, params, K):
    return params["factor"]
