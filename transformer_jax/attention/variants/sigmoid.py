"""Sigmoid attention. Ramapuram et al., 2024.

https://arxiv.org/abs/2409.04431
"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.attention.variants.base import Variant, attentions
from transformer_jax.axes import whole
from transformer_jax.spec import SpecError


@attentions.register("sigmoid")
@dataclasses.dataclass(frozen=True)
class Sigmoid(Variant):
  """sigmoid(score - ln n): weights that need not add up to one.

      w_ij = sigmoid(s_ij - ln n)

  In the paper, n is the length of the text. A query of a causal model attends to fewer
  keys, so n is here the number of unmasked keys.

  fixed   n of every query; 0: the number of unmasked keys

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> pointwise = jax.jit(tj.attentions.build("sigmoid").pointwise)
  >>> w_LM = pointwise({}, np.array([[0.0, 1, 3, -3]]), np.array([[4.0]]))
  >>> print(np.asarray(w_LM).round(2))
  [[0.2  0.4  0.83 0.01]]
  """

  fixed: int = 0

  def __post_init__(self):
    if not whole(self.fixed, 0):
      raise SpecError(
        f"sigmoid: fixed is {self.fixed!r}; write a number of keys, or 0 to count them"
      )

  def pointwise(self, params, s_LM, keys_L1):
    return jax.nn.sigmoid(s_LM - jnp.log(self.fixed or keys_L1))
