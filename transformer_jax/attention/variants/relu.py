"""ReLU attention. Wortsman et al., 2023.

https://arxiv.org/abs/2309.08586
"""

import dataclasses

import jax

from transformer_jax.attention.variants.base import Variant, attentions
from transformer_jax.axes import whole
from transformer_jax.spec import SpecError


@attentions.register("relu")
@dataclasses.dataclass(frozen=True)
class ReluAttention(Variant):
  """relu(score) / n ** power: weights that need not add up to one.

      w_ij = relu(s_ij) / n^power

  In the paper, n is the length of the text. A query of a causal model attends to fewer
  keys, so n is here the number of unmasked keys.

  power   exponent of n; 1 is best in the paper
  fixed   n of every query; 0: the number of unmasked keys

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> pointwise = jax.jit(tj.attentions.build("relu").pointwise)
  >>> print(pointwise({}, np.array([[2.0, -1, 1, 0]]), np.array([[4.0]])))
  [[0.5  0.   0.25 0.  ]]
  """

  power: float = 1.0
  fixed: int = 0

  def __post_init__(self):
    if not isinstance(self.power, (int, float)):
      raise SpecError(f"relu: power is {self.power!r}; write a number such as 1")
    if not whole(self.fixed, 0):
      raise SpecError(
        f"relu: fixed is {self.fixed!r}; write a number of keys, or 0 to count them"
      )

  def pointwise(self, params, s_LM, keys_L1):
    return jax.nn.relu(s_LM) / (self.fixed or keys_L1) ** self.power
