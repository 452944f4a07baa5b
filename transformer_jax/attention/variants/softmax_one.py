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
  """

  def sink_logit(self, params):
    return jnp.zeros(1)
