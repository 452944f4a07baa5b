"""Softmax whose weights may add up to less than one. Miller, 2023.

https://www.evanmiller.org/attention-is-off-by-one.html
"""

import dataclasses

import jax.numpy as jnp

from transformer_jax.attention.variants.base import Variant, attentions


@attentions.register("softmax_one")
@dataclasses.dataclass(frozen=True)
class SoftmaxOne(Variant):
  """Adds one to the softmax's sum, as a key with score 0 and value 0 would.

      w_ij = exp(s_ij) / (1 + sum over t of exp(s_it))

  Not shift-invariant: a constant added to a row's scores changes the weights.

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> softmax_one = tj.attention.BoundVariant(tj.attentions.build("softmax_one"))
  >>> s_BHLM, mask_BLM = np.array([[[[0.0] * 4, [-9.0] * 4]]]), np.ones((1, 2, 4), bool)
  >>> print(np.asarray(jax.jit(softmax_one.weigh)(s_BHLM, mask_BLM))[0, 0].round(2))
  [[0.2 0.2 0.2 0.2]
   [0.  0.  0.  0. ]]
  """

  def sink_logit(self, params):
    return jnp.zeros(1)
