"""Normalized values, as in Gemma 3n. Google, 2025.

https://ai.google.dev/gemma/docs/gemma-3n
"""

import dataclasses

import jax.numpy as jnp

from transformer_jax.attention.variants.base import Variant, attentions
from transformer_jax.normalization import inverse_rms


@attentions.register("value_norm")
@dataclasses.dataclass(frozen=True)
class ValueNorm(Variant):
  """RMS norm of each head's values, before they are mixed.

      o_i = sum over j of w_ij rms_norm(v_j)

  Gemma 3n has no gains, x-transformers' `value_rmsnorm` has those of each head.

  gain       learns the gains of features; all heads of a layer share them
  per_head   each head has its own gains
  epsilon    added to the mean square

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> values = jax.jit(tj.attentions.build("value_norm(gain=False)").values)
  >>> print(np.asarray(values({}, np.array([[[[3.0, 4.0]]]])))[0, 0, 0].round(2))
  [0.85 1.13]
  """

  gain: bool = True
  per_head: bool = False
  epsilon: float = 1e-6

  def init(self, key, dims):
    E = dims.E or dims.K
    if not self.gain:
      return {}
    if not self.per_head:
      return {"value_gain_E": jnp.ones(E)}
    name, heads = ("value_gain_GE", dims.G) if dims.G else ("value_gain_HE", dims.H)
    return {name: jnp.ones((heads, E))}

  def values(self, params, v_BMGE):
    normal_BMGE = v_BMGE * inverse_rms(v_BMGE.astype(jnp.float32), self.epsilon)
    if self.gain:
      normal_BMGE *= next(x for n, x in params.items() if n.startswith("value_gain_"))
    return normal_BMGE.astype(v_BMGE.dtype)
