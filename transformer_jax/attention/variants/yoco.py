"""You only cache once: upper layers read the keys of one. Sun et al., 2024.

https://arxiv.org/abs/2405.05254
"""

import dataclasses

from transformer_jax.attention.variants.base import Variant, attentions
from transformer_jax.attention.variants.layered import Layered
from transformer_jax.attention.variants.shared_keys import ReadsKeys, WritesKeys
from transformer_jax.axes import whole
from transformer_jax.spec import SpecError


@attentions.register("yoco")
@dataclasses.dataclass(frozen=True)
class YOCO(Layered):
  """All upper layers read the keys and values that the first of them makes.

  You only cache once: the lower layers have attention of bounded memory, a window or a
  mixer, so that one cache grows with the text.

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
