"""Exclusive self-attention. Zhai, 2026. https://arxiv.org/abs/2603.09078"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.attention.variants.base import Variant, attentions
from transformer_jax.spec import SpecError


@attentions.register("xsa")
@dataclasses.dataclass(frozen=True)
class ExclusiveSelf(Variant):
  """Takes from each head's output its part along the token's own value.

      o_i' = o_i - (o_i . u_i) u_i, u_i = v_i / |v_i|

  What is left is orthogonal to the own value, so a head passes on only what the token
  does not hold already. The first token of a text, which attends to itself alone, gets
  zeros. No parameters; heads that share a value (`gqa(2) + xsa`) each lose their part
  along it.

  epsilon   least length of a value that is divided by

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> own_value = jax.jit(tj.attentions.build("xsa").own_value)
  >>> v_BLHE = np.array([[[[0.0, 2.0]]]])
  >>> print(own_value({}, None, np.array([[[[3.0, 4.0]]]]), v_BLHE))
  [[[[3. 0.]]]]
  """

  epsilon: float = 1e-12

  def __post_init__(self):
    if not self.epsilon > 0:
      raise SpecError(f"xsa: epsilon is {self.epsilon!r}; write a number above 0")

  def own_value(self, params, x_BLD, o_BLHE, v_BLHE):
    o, v = o_BLHE.astype(jnp.float32), v_BLHE.astype(jnp.float32)
    square_BLH1 = jnp.sum(jnp.square(v), axis=-1, keepdims=True)
    u = v * jax.lax.rsqrt(jnp.maximum(square_BLH1, self.epsilon**2))
    along_BLH1 = jnp.sum(o * u, axis=-1, keepdims=True)
    return (o - along_BLH1 * u).astype(o_BLHE.dtype)
