"""Groups of query heads that share keys and values. Ainslie et al., 2023.

https://arxiv.org/abs/2305.13245
"""

import dataclasses

import jax.numpy as jnp

from transformer_jax.attention.projections import Arrays, Heads
from transformer_jax.attention.variants.base import Variant, attentions
from transformer_jax.axes import whole
from transformer_jax.spec import SpecError


@attentions.register("gqa")
@dataclasses.dataclass(frozen=True)
class GQA(Variant):
  """Groups of query heads share a head of keys and values; the cache shrinks likewise.

      query head h reads key and value head ceil(h G / H), h = 1 ... H

  groups   heads of keys and values; it divides the model's heads
  bias     queries, keys, values and the output are shifted by learned vectors;
           "in": all but the output, "out": only the output
  clip     cuts queries, keys and values to -clip .. clip, as in OLMo; 0: it does not

  >>> import transformer_jax as tj
  >>> dims = tj.Dims(V=2, D=64, H=8, F=64, L=8)
  >>> weights = tj.attentions.build("gqa(groups=2)").projections().weights(dims)
  >>> weights["query_DHK"], weights["key_DGK"], weights["value_DGK"]
  (((64, 8, 8), 1), ((64, 2, 8), 1), ((64, 2, 8), 1))
  """

  groups: int = 2
  bias: bool | str = False
  clip: float = 0.0

  def __post_init__(self):
    if not whole(self.groups, 1):
      raise SpecError(f"{self.name}: groups is {self.groups!r}; write gqa(groups=2)")

  def projections(self):
    return Heads(self.groups, self.bias, clip=self.clip)


def pooled(w: Arrays, groups: int) -> Arrays:
  """Returns a multi-head layer's parameters with keys and values averaged in groups.

  The paper continues training from these, for 5% of the original steps.
  """

  def pool(name, x):
    if not name.startswith(("key_", "value_")):
      return name, x
    H = name.rpartition("_")[2].index("H")
    grouped = x.reshape(*x.shape[:H], groups, -1, *x.shape[H + 1 :])
    return name.replace("H", "G"), jnp.mean(grouped, axis=H + 1)

  return dict(pool(name, x) for name, x in w.items())
