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
  """Scores are cosines times a number g that each layer learns.

      s_ij = g cos(q_i, k_j)

  It starts at log2(L^2 - L), L being the length of training texts; the paper takes the
  length that 97.5% of its texts do not pass.
  """

  def init(self, key, dims):
    L = max(dims.L, 2)
    return {"factor": jnp.log2(jnp.asarray(L * L - L, jnp.float32))}

  def condition(self, params, q_BLHK, k_BMGK):
    return unit(q_BLHK), unit(k_BMGK)

  def scale(self, params, K):
    return params["factor"]
