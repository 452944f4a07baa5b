"""A softmax that may also look at nothing. Miller, 2023.

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

  What is the same for all scores of a row no longer cancels.
  """

  def sink_logit(self, params):
    return jnp.zeros(1)
