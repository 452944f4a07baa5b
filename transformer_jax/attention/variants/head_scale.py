"""A learned factor on each head. Shleifer et al., 2021.

https://arxiv.org/abs/2110.09456
"""

import dataclasses

import jax.numpy as jnp

from transformer_jax.attention.variants.base import Variant, attentions


@attentions.register("head_scale")
@dataclasses.dataclass(frozen=True)
class HeadScale(Variant):
  """Multiplies the output of a head by a learned number, initialized to one.

      o_h' = g_h o_h

  A layer has one such number per head.

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> output = jax.jit(tj.attentions.build("head_scale").output)
  >>> params = {"head_scale_H": np.array([1.0, 0.5])}
  >>> print(output(params, None, np.ones((1, 1, 2, 3)))[0, 0])
  [[1.  1.  1. ]
   [0.5 0.5 0.5]]
  """

  def init(self, key, dims):
    return {"head_scale_H": jnp.ones(dims.H)}

  def output(self, params, x_BLD, o_BLHE):
    return o_BLHE * params["head_scale_H"].astype(o_BLHE.dtype)[:, None]
