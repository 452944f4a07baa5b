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

  >>> import jax
  >>> import transformer_jax as tj
  >>> dims = tj.Dims(V=2, D=64, H=8, F=64, L=1024)
  >>> params = tj.attentions.build("qk_norm_l2").init(jax.random.key(0), dims)
  >>> round(params["factor"].item(), 2)
  20.0
  """

  def init(self, key, dims):
    L = max(dims.L, 2)
    return {"factor": jnp.log2(jnp.asarray(L * L - L, jnp.float32))}

  def condition(self, params, q_BLHK, k_BMGK):
    return unit(q_BLHK), unit(k_BMGK)

  def scale(self, params, K):
    return params["factor"]
