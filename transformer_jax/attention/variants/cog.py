"""Cog attention: weights that may be negative. Lv et al., 2024.

https://arxiv.org/abs/2411.07176
"""

import dataclasses

import jax.numpy as jnp

from transformer_jax.attention.variants.base import Variant, attentions
from transformer_jax.attention.variants.bound_variant import softmax


@attentions.register("cog")
@dataclasses.dataclass(frozen=True)
class Cog(Variant):
  """sign(score) * softmax(|score|): the absolute weights of a row add up to one.

      w_ij = sign(s_ij) exp|s_ij| / sum over t of exp|s_it|

  x-transformers' `cog_signed`. A positional bias belongs to the score: one that is
  large and negative, as `alibi` gives to far keys, makes a large negative weight.

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> s_BHLM = np.array([[[[2.0, -2.0, 1.0, 0.0]]]])
  >>> w_BHLM = jax.jit(tj.attentions.build("cog").weigh)({}, s_BHLM, s_BHLM < 9)
  >>> print(np.asarray(w_BHLM).round(2))
  [[[[ 0.4  -0.4   0.15  0.  ]]]]
  """

  signed = True

  def weigh(self, params, s_BHLM, mask_B1LM):
    return jnp.sign(s_BHLM) * softmax(jnp.abs(s_BHLM), mask_B1LM)
