"""Attention without projections, and so without parameters: softmax(X X^T) X.

Vaswani et al., 2017. https://arxiv.org/abs/1706.03762
"""

import dataclasses

import jax

from transformer_jax.attention.projections import Arrays, Projections
from transformer_jax.attention.variants.base import Variant, attentions


@dataclasses.dataclass(frozen=True)
class Slices(Projections):
  """Slices of tokens as queries, keys and values of heads; a cache stores the tokens.

  heads     number of heads, set by `fit`
  project   whether the output has a projection

  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> dims = tj.Dims(V=2, D=8, H=2, F=8, L=8)
  >>> slices = tj.attentions.build("unparameterised").projections().fit(dims)
  >>> print(slices.query({}, np.arange(8.0)[None, None])[0, 0])
  [[0. 1. 2. 3.]
   [4. 5. 6. 7.]]
  """

  heads: int = 0
  project: bool = True

  def weights(self, dims):
    shape = dims.H, dims.K, dims.D
    return {"out_HKD": (shape, 2)} if self.project else {}

  def check(self, dims):
    if dims.H * dims.K != dims.D:
      raise ValueError(
        f"heads are slices of a token here, and {dims.H} heads of {dims.K} features are"
        f" not its {dims.D}; leave head_width at 0"
      )

  def fit(self, dims):
    self.check(dims)
    return dataclasses.replace(self, heads=dims.H)

  def query(self, w, x_BLD):
    return self.slices(x_BLD)

  def memory(self, w, x_BMD):
    return {"token": x_BMD}

  def read(self, w, kept):
    x_BMHK = self.slices(kept["token"])
    return x_BMHK, x_BMHK

  def out(self, w: Arrays, o_BLHE: jax.Array, x_BLD: jax.Array) -> jax.Array:
    return (
      super().out(w, o_BLHE, x_BLD) if self.project else o_BLHE.reshape(x_BLD.shape)
    )

  def slices(self, x_BLD: jax.Array) -> jax.Array:
    """Returns x_BLHK, the slice of features of each head."""
    return x_BLD.reshape(*x_BLD.shape[:2], self.heads, -1)


@attentions.register("unparameterised")
@dataclasses.dataclass(frozen=True)
class Unparameterised(Variant):
  """Tokens are queries, keys and values at once; each head reads a slice of them.

      o = softmax(X X^T / sqrt(K)) X

  A token's highest score is with itself unless its norm is small. `unparameterised +
  scale(0)` does not scale the products. With one head, the slice is the whole token.

  project   whether the output has a projection, the only parameter

  >>> import transformer_jax as tj
  >>> dims = tj.Dims(V=2, D=64, H=8, F=64, L=8)
  >>> tj.attentions.build("unparameterised").projections().weights(dims)
  {'out_HKD': ((8, 8, 64), 2)}
  >>> tj.attentions.build("unparameterised(project=False)").projections().weights(dims)
  {}
  """

  project: bool = True

  def projections(self):
    return Slices(project=self.project)
