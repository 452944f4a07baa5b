"""Alternating layers, such as local and global ones. Gemma 2, 2024; Gemma 3, 2025.

https://arxiv.org/abs/2408.00118, https://arxiv.org/abs/2503.19786
"""

import dataclasses

from transformer_jax.attention.variants.base import Variant, attentions
from transformer_jax.forwarding import Combined, forward, of_first_layer
from transformer_jax.spec import SpecError


@attentions.register("alternate")
@dataclasses.dataclass(frozen=True)
class Alternate(Variant):
  """Uses one variant in one of every `period` layers and another in the others.

      layer n uses `last` where (n - at) mod period = 0, else `usual`

  `alternate(window(4096), multihead)` is Gemma 2's, `alternate(window(1024), multihead,
  6)` is Gemma 3's, `alternate(multihead, window(256))` is GPT-Neo's,
  `alternate(window(65), multihead, 3, at=0)` is ModernBERT's. Layers may have
  different parameters and caches. The hooks of the alternation itself are those of
  layer 0.

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
    if not isinstance(self.period, int) or self.period < 2:
      raise SpecError(
        f"alternate: period is {self.period!r}; write a whole number above 1, as in"
        " alternate(window(1024), multihead, 6)"
      )
    if not isinstance(self.at, int) or not -1 <= self.at < self.period:
      raise SpecError(
        f"alternate: at is {self.at!r}; write which of {self.period} layers differs,"
        f" from 0 to {self.period - 1}, or -1 for the last"
      )
    object.__setattr__(self, "usual", attentions.build(self.usual))
    object.__setattr__(self, "last", attentions.build(self.last))

  signed = Combined(any)
  positive = Combined(any)
  rereads = Combined(any)
  mixer = Variant.mixer  # of the alternation itself: its layers may be
  name = Variant.name
  tile_local = Variant.tile_local
  reads_keys = Variant.reads_keys

  @property
  def parts(self):
    return self.usual, self.last

  def layer(self, n):
    return self.parts[n % self.period == self.at % self.period].layer(n)

  def overrides(self, hook):
    return any(part.overrides(hook) for part in self.parts)

  def refusal(self, encoding):
    reasons = (part.refusal(encoding) for part in self.parts if not part.mixer)
    return next((reason for reason in reasons if reason), None)

  def bidirectional(self):
    usual, last = (part.bidirectional() for part in self.parts)
    return dataclasses.replace(self, usual=usual, last=last)

  def cross(self):
    usual, last = (part.cross() for part in self.parts)
    return dataclasses.replace(self, usual=usual, last=last)


forward(Alternate, Variant, hook=of_first_layer)
