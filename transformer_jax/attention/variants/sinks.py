"""Learned attention sink of each head. gpt-oss, 2025.

https://arxiv.org/abs/2508.10925
"""

import dataclasses

import jax

from transformer_jax.attention.variants.base import Variant, attentions
from transformer_jax.spec import SpecError


@attentions.register("sinks")
@dataclasses.dataclass(frozen=True)
class Sinks(Variant):
  """A learned logit joins each head's softmax and brings no value.

      w_ij = exp(s_ij) / (exp(b_h) + sum over t of exp(s_it))

  The logit is not scaled. It starts near 0, the constant logit of `softmax_one`.

  deviation   standard deviation of its initial values, which are normal

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> params = {"sink_H": np.log([1.0, 4.0])}  # of two heads
  >>> sinks = tj.attention.BoundVariant(tj.attentions.build("sinks"), params)
  >>> w_BHLM = jax.jit(sinks.weigh)(np.zeros((1, 2, 1, 4)), np.ones((1, 1, 4), bool))
  >>> print(np.asarray(w_BHLM)[0, :, 0].round(3))
  [[0.2   0.2   0.2   0.2  ]
   [0.125 0.125 0.125 0.125]]
  """

  deviation: float = 0.02

  def __post_init__(self):
    if not (isinstance(self.deviation, (int, float)) and self.deviation >= 0):
      raise SpecError(
        f"sinks: deviation is {self.deviation!r}; write a number that is not negative"
      )

  def init(self, key, dims):
    return {"sink_H": self.deviation * jax.random.normal(key, (dims.H,))}

  def sink_logit(self, params):
    return params["sink_H"]
