"""Alternating layers, such as local and global ones. Gemma 2, 2024; Gemma 3, 2025.

https://arxiv.org/abs/2408.00118, https://arxiv.org/abs/2503.19786
"""

import dataclasses

from transformer_jax.attention.variants.base import Variant, attentions
from transformer_jax.attention.variants.layered import Layered
from transformer_jax.axes import whole
from transformer_jax.spec import SpecError


@attentions.register("alternate")
@dataclasses.dataclass(frozen=True)
class Alternate(Layered):
  """Uses one variant in one of every `period` layers and another in the others.

      layer n uses `last` where (n - at) mod period = 0, else `usual`

  `alternate(window(4096), multihead)` is Gemma 2's, `alternate(window(1024), multihead,
  6)` is Gemma 3's, `alternate(multihead, window(256))` is GPT-Neo's,
  `alternate(window(65), multihead, 3, at=0)` is ModernBERT's.

  usual    variant of most layers
  last     variant of one layer in every period
  period   layers in a period; 2: the variants alternate
  at       index from 0 of the layer of each period that uses `last`; -1: the last one

  >>> import transformer_jax as tj
  >>> gemma3 = tj.attentions.build("alternate(window(1024), multihead, 6)")
  >>> [gemma3.layer(n).name for n in range(7)]
  ['window', 'window', 'window', 'window', 'window', 'multihead', 'window']
  """

  usual: Variant = Variant()
  last: Variant = Variant()
  period: int = 2
  at: int = -1

  def __post_init__(self):
    if not whole(self.period, 2):
      raise SpecError(
        f"alternate: period is {self.period!r}; write a whole number above 1, as in"
        " alternate(window(1024), multihead, 6)"
      )
    if not whole(self.at, -1) or self.at >= self.period:
      raise SpecError(
        f"alternate: at is {self.at!r}; write which of {self.period} layers differs,"
        f" from 0 to {self.period - 1}, or -1 for the last"
      )
    object.__setattr__(self, "usual", attentions.build(self.usual))
    object.__setattr__(self, "last", attentions.build(self.last))

  @property
  def parts(self):
    return self.usual, self.last

  def which(self, n):
    return int(n % self.period == self.at % self.period)

  def formed(self, parts):
    usual, last = parts
    return dataclasses.replace(self, usual=usual, last=last)
