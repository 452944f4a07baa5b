"""Softpick: rectified softmax without sinks. Zuhri et al., 2025.

https://arxiv.org/abs/2504.20966
"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.attention.variants.base import Variant, attentions
from transformer_jax.spec import SpecError


@attentions.register("softpick")
@dataclasses.dataclass(frozen=True)
class Softpick(Variant):
  """Weights relu(exp(score) - 1), divided by the sum of |exp(score) - 1|.

      w_ij = relu(exp(s_ij) - 1) / (sum over t of |exp(s_it) - 1| + epsilon)

  A key with a score of zero or less has no weight, but one below zero still counts in
  the sum: the weights of a row add up to at most one, and may all be zero.

  epsilon   added to the sum, of exp(score - m) - exp(-m) with m, the largest score of
            the row or 0

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> s_BHLM = np.log([[[[3.0, 2.0, 1.0, 0.5]]]])
  >>> w_BHLM = jax.jit(tj.attentions.build("softpick").weigh)({}, s_BHLM, s_BHLM < 9)
  >>> print(np.asarray(w_BHLM).round(2))  # 2, 1 and 0 of 2 + 1 + 0 + 0.5
  [[[[0.57 0.29 0.   0.  ]]]]
  """

  epsilon: float = 1e-8

  def __post_init__(self):
    if not self.epsilon > 0:
      raise SpecError(
        f"softpick: epsilon is {self.epsilon!r}; write a number above 0, which rows of"
        " zeros are divided by"
      )

  def weigh(self, params, s_BHLM, mask_B1LM):
    s_BHLM = jnp.where(mask_B1LM, s_BHLM, 0.0)
    # Factors exp(-m) of both sums cancel. With m = 0 at least, exp(-m) is finite; where
    # all scores are below zero, so are all weights, whatever m is.
    m_BHL1 = jax.lax.stop_gradient(jnp.max(s_BHLM, axis=-1, keepdims=True))
    above_BHLM = jnp.exp(s_BHLM - m_BHL1) - jnp.exp(-m_BHL1)
    total_BHL1 = jnp.sum(jnp.abs(above_BHLM), axis=-1, keepdims=True)
    return jax.nn.relu(above_BHLM) / (total_BHL1 + self.epsilon)
