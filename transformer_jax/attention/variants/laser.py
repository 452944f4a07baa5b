"""LASER: attention to exponentials of values. Duvvuri and Dhillon, 2024.

https://arxiv.org/abs/2411.03493
"""

import dataclasses

import jax.numpy as jnp

from transformer_jax.attention.variants.base import Variant, attentions
from transformer_jax.spec import SpecError


@attentions.register("laser")
@dataclasses.dataclass(frozen=True)
class Laser(Variant):
  """log(weights @ exp(values)), for larger gradients through the softmax.

      o_i = ln(sum over j of w_ij exp(v_j))

  Values are first capped to cap * tanh(value / cap), as in x-transformers, so that exp
  does not overflow. The paper subtracts the largest value of the whole text instead,
  which a decoder does not know. A query whose keys are all masked gets zeros.

  cap   bound on the absolute values

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> laser = tj.attentions.build("laser")
  >>> exp_BMGE = np.asarray(jax.jit(laser.values)({}, np.array([[[[0.0]], [[5.0]]]])))
  >>> o_BGE = jax.jit(laser.mixed)({}, exp_BMGE.mean(1))  # equal weights of 0 and 5
  >>> print(np.asarray(o_BGE).round(2))
  [[[4.14]]]
  """

  cap: float = 15.0
  positive = True

  def __post_init__(self):
    if not 0 < self.cap <= 40:
      raise SpecError(
        f"laser: cap is {self.cap!r}; write a number above 0, up to 40: float32 ends"
        " at exp(88)"
      )

  def values(self, params, v_BMGE):
    capped_BMGE = self.cap * jnp.tanh(v_BMGE.astype(jnp.float32) / self.cap)
    return jnp.exp(capped_BMGE).astype(v_BMGE.dtype)

  def mixed(self, params, o_BLHE):
    empty_BLHE = o_BLHE == 0
    log_BLHE = jnp.log(jnp.where(empty_BLHE, 1, o_BLHE).astype(jnp.float32))
    return jnp.where(empty_BLHE, 0, log_BLHE).astype(o_BLHE.dtype)

  def refusal(self, encoding):
    if encoding.overrides("values"):
      return (
        f"{encoding.name} adds to the mixture of values, of which {self.name} takes the"
        " logarithm; use another encoding or another attention"
      )
    return None
