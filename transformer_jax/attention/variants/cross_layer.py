"""Keys and values that several layers read: cross-layer attention, YOCO.

Brandon et al., 2024, https://arxiv.org/abs/2405.12981;
Sun et al., 2024, https://arxiv.org/abs/2405.05254.
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
  """Each group of layers reads the keys and values of its first one. Brandon et al.

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


@attentions.register("yoco")
@dataclasses.dataclass(frozen=True)
class YOCO(Layered):
  """All upper layers read the keys and values that the first of them makes.

  You only cache once: the lower layers have attention of bounded memory, a window or a
  mixer, so that one cache grows with the text. Sun et al., 2024,
  https://arxiv.org/abs/2405.05254.

  lower    attention of the lower layers
  upper    attention of the upper layers
  layers   number of lower layers, half of all in the paper

  >>> once = attentions.build("yoco(window(64), multihead, 1)")
  >>> [(once.layer(n).name, once.layer(n).kv_from) for n in range(4)]
  [('window', ''), ('multihead', ''), ('multihead', 'kv'), ('multihead', 'kv')]
  """

  lower: Variant | str = "window(64)"
  upper: Variant = Variant()
  layers: int = 1

  def __post_init__(self):
    if not whole(self.layers, 0):
      raise SpecError(
        f"yoco: layers is {self.layers!r}; write how many lower layers there are, as in"
        " yoco(window(64), multihead, 2)"
      )
    for name in ("lower", "upper"):
      object.__setattr__(self, name, attentions.build(getattr(self, name)))
    ReadsKeys(self.upper.layer(self.layers))

  @property
  def parts(self):
    return self.lower, WritesKeys(self.upper), ReadsKeys(self.upper)

  def which(self, n):
    return min(max(n - self.layers + 1, 0), 2)

  def formed(self, parts):
    return dataclasses.replace(self, lower=parts[0], upper=parts[1].inner)

  def cross(self):
    return self.upper.cross()
