"""Sparsemax: the weights nearest to the scores. Martins and Astudillo, 2016.

https://arxiv.org/abs/1602.02068
"""

import dataclasses

import jax.numpy as jnp

from transformer_jax.attention.variants.base import Variant, attentions
from transformer_jax.attention.variants.entmax import entmax


@attentions.register("sparsemax")
@dataclasses.dataclass(frozen=True)
class Sparsemax(Variant):
  """Weights max(0, score - t), whose sum is one: `entmax(alpha=2)`.

      w_ij = max(0, s_ij - t_i), sum over j of w_ij = 1

  It is the Euclidean projection of the scores onto the simplex.

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> s_BHLM = np.array([[[[2.0, 1.5, 1.0, -1.0]]]])
  >>> w_BHLM = jax.jit(tj.attentions.build("sparsemax").weigh)({}, s_BHLM, s_BHLM < 9)
  >>> print(np.asarray(w_BHLM).round(2))
  [[[[0.75 0.25 0.   0.  ]]]]
  """

  def weigh(self, params, s_BHLM, mask_B1LM):
    return entmax(jnp.full((1, 1, 1), 2.0), s_BHLM, mask_B1LM, 1.0)
