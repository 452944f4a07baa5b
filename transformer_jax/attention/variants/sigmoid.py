"""Each weight is a sigmoid of its own score. Ramapuram et al., 2024.

https://arxiv.org/abs/2409.04431
"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.attention.variants.base import Variant, attentions
from transformer_jax.spec import SpecError


@attentions.register("sigmoid")
@dataclasses.dataclass(frozen=True)
class Sigmoid(Variant):
  """sigmoid(score - ln n): weights that need not add up to one.

      w_ij = sigmoid(s_ij - ln n)

  The paper takes the length of the text for n. A query of a causal model sees fewer
  keys than that, so n is here how many it does see.

  fixed   n of every query; 0: as many keys as the query sees
  """

  fixed: int = 0

  def __post_init__(self):
    if not (isinstance(self.fixed, int) and self.fixed >= 0):
      raise SpecError(
        f"sigmoid: fixed is {self.fixed!r}; write a number of keys, or 0 to count them"
      )

  def pointwise(self, params, s_LM, keys_L1):
    return jax.nn.sigmoid(s_LM - jnp.log(self.fixed or keys_L1))
