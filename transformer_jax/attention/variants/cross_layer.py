"""Keys and values that a group of layers reads. Brandon et al., 2024.

https://arxiv.org/abs/2405.12981
"""

import dataclasses

from transformer_jax.attention.variants.base import Variant, attentions
from transformer_jax.attention.variants.layered import Layered
from transformer_jax.attention.variants.shared_keys import ReadsKeys, WritesKeys
from transformer_jax.axes import whole
from transformer_jax.spec import SpecError


@attentions.register("cross_layer")
@dataclasses.dataclass(frozen=True)
class CrossLayer(Layered):
  """Each group of layers reads the keys and values of its first one.

  The cache holds those of one layer in `every`, and the others have no projections of
  their own for them.

  inner   attention of all layers
  every   layers of a group, which are counted from the model's first

  >>> pairs = attentions.build("cross_layer(gqa(2), every=2)")
  >>> [bool(pairs.layer(n).kv_as) for n in range(4)]
  [True, False, True, False]
  """

  inner: Variant = Variant()
  every: int = 2

  def __post_init__(self):
    if not whole(self.every, 2):
      raise SpecError(
        f"cross_layer: every is {self.every!r}; write how many layers share keys, as"
        " every=2"
      )
    object.__setattr__(self, "inner", attentions.build(self.inner))
    ReadsKeys(self.inner.layer(0))

  @property
  def parts(self):
    slot = repr(self.inner)  # other variants of a model may share keys of their own
    return WritesKeys(self.inner, slot), ReadsKeys(self.inner, slot)

  def which(self, n):
    return int(n % self.every > 0)

  def formed(self, parts):
    return dataclasses.replace(self, inner=parts[0].inner)

  def cross(self):
    return self.inner.cross()
