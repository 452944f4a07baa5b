"""Explicit sparse attention. Zhao et al., 2019. https://arxiv.org/abs/1912.11637"""

import dataclasses

import jax.numpy as jnp

from transformer_jax.attention.variants.base import Variant, attentions
from transformer_jax.attention.variants.bound_variant import MASKED, softmax
from transformer_jax.attention.variants.selection import nth_largest
from transformer_jax.axes import check_whole


@attentions.register("topk")
@dataclasses.dataclass(frozen=True)
class TopK(Variant):
  """Softmax over the k highest scores of each query; all other weights are zero.

      w_ij = softmax over the k largest s_ij, else 0

  Keys that tie with the k-th highest score also have weights, as in the paper's
  equation 5. The gradient goes through these scores alone; with k=1, queries and keys
  get none.

  k   number of keys; a query with at most k unmasked keys has a plain softmax

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> s_BHLM = np.array([[[[1.0, 3.0, 0.0, 2.0]]]])
  >>> w_BHLM = jax.jit(tj.attentions.build("topk(2)").weigh)({}, s_BHLM, s_BHLM < 9)
  >>> print(np.asarray(w_BHLM).round(2))
  [[[[0.   0.73 0.   0.27]]]]
  """

  k: int = 8

  def __post_init__(self):
    check_whole(self, k=1)

  def weigh(self, params, s_BHLM, mask_B1LM):
    masked_BHLM = jnp.where(mask_B1LM, s_BHLM, MASKED)
    least_BHL1 = nth_largest(masked_BHLM, self.k)
    return softmax(s_BHLM, mask_B1LM & (masked_BHLM >= least_BHL1))
