"""Capped scores. Bello et al., 2016; Gemma 2, 2024.

https://arxiv.org/abs/1611.09940, https://arxiv.org/abs/2408.00118
"""

import dataclasses

import jax.numpy as jnp

from transformer_jax.attention.variants.base import Variant, attentions
from transformer_jax.spec import SpecError


@attentions.register("softcap")
@dataclasses.dataclass(frozen=True)
class Softcap(Variant):
  """cap * tanh(score / cap), after the scale and the positional bias, before the mask.

      s_ij' = cap tanh(s_ij / cap)

  So the bias is capped too, as in Gemma's code: distances whose bias alone is above the
  cap, as ALiBi's large ones, get nearly equal scores.

  cap   bound on the absolute scores

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> logits = jax.jit(tj.attentions.build("softcap(50)").logits)
  >>> print(np.asarray(logits({}, np.array([[1.0, 10, 50, 500, -500]]))).round(2))
  [[  1.     9.87  38.08  50.   -50.  ]]
  """

  cap: float = 50.0

  def __post_init__(self):
    if not self.cap > 0:
      raise SpecError(f"softcap: cap is {self.cap!r}; write a number above 0")

  def logits(self, params, s_LM):
    return self.cap * jnp.tanh(s_LM / self.cap)
