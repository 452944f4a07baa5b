"""Queries of two heads each, as in RoPE++. Liu et al., 2025.

https://arxiv.org/abs/2512.07525
"""

import dataclasses

import jax.numpy as jnp

from transformer_jax.attention.projections import Heads
from transformer_jax.attention.variants.base import Variant, attentions
from transformer_jax.axes import whole
from transformer_jax.spec import SpecError


@dataclasses.dataclass(frozen=True)
class Twins(Heads):
  """Multi-head projections in which neighbouring heads, 2n and 2n + 1, share a query.

  groups   heads of keys and values; 0: one for each query

  >>> import transformer_jax as tj
  >>> dims = tj.Dims(V=2, D=64, H=8, F=64, L=8)
  >>> weights = tj.attentions.build("twin_queries").projections().weights(dims)
  >>> weights["query_DGK"], weights["key_DGK"], weights["out_HKD"]
  (((64, 4, 8), 1), ((64, 4, 8), 1), ((8, 8, 64), 2))
  """

  def weights(self, dims):
    shapes = Heads(self.of_keys(dims)).weights(dims)
    del shapes["query_DHK"]
    return {"query_DGK": ((dims.D, dims.H // 2, dims.K), 1)} | shapes

  def of_keys(self, dims):
    """Returns the number of heads of keys and values."""
    return self.groups or dims.H // 2

  def check(self, dims):
    super().check(dims)
    if dims.H % 2:
      raise ValueError(
        f"twin_queries gives each query two heads, and {dims.H} is odd; choose an even"
        " number of heads"
      )

  def sizes(self, dims):
    return dataclasses.replace(super().sizes(dims), G=self.of_keys(dims))

  def query(self, w, x_BLD):
    return jnp.repeat(super().query(w, x_BLD), 2, axis=2)


@attentions.register("twin_queries")
@dataclasses.dataclass(frozen=True)
class TwinQueries(Variant):
  """Heads 2n and 2n + 1 have one query; their outputs are projected apart.

      q_2n = q_2n+1 = W_n x

  An encoding must tell the two apart: `position=rope_pp` turns them by different
  angles, which is RoPE++. With as many heads as before, the cache is half as large (the
  paper's RoPE++EH); with twice as many of the same width, it is as large (RoPE++EC).

  groups   heads of keys and values; it divides the model's heads. 0: half as many

  >>> import transformer_jax as tj
  >>> dims = tj.Dims(V=2, D=64, H=8, F=64, L=8)
  >>> tj.attentions.build("twin_queries(groups=2)").projections().sizes(dims).G
  2
  """

  groups: int = 0

  def __post_init__(self):
    if not whole(self.groups, 0):
      raise SpecError(
        f"twin_queries: groups is {self.groups!r}; write a number of key heads, or 0"
      )

  def projections(self):
    return Twins(self.groups)
