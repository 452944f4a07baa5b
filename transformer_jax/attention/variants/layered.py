"""Attention by layer: a list of variants, of which each layer uses one."""

import dataclasses
import itertools

from transformer_jax.attention.variants.base import Variant, attentions
from transformer_jax.attention.variants.window import Window
from transformer_jax.forwarding import Combined, forward, of_first_layer
from transformer_jax.spec import SpecError


@dataclasses.dataclass(frozen=True)
class Layered(Variant):
  """Base class of variants that differ from layer to layer.

  Layers may have different parameters and caches. The hooks of the object itself are
  those of layer 0.

  >>> from transformer_jax.attention import attentions
  >>> issubclass(attentions["alternate"], Layered)
  True
  """

  signed = Combined(any)
  positive = Combined(any)
  rereads = Combined(any)
  convolves = Variant.convolves  # of the layers alone
  reads_tokens = Combined(any)
  untrained = Combined(lambda names: tuple(itertools.chain(*names)))
  # Of the list itself: its layers may be mixers, or share keys.
  mixer, kv_from, kv_as = Variant.mixer, Variant.kv_from, Variant.kv_as
  name = Variant.name
  tile_local = Variant.tile_local
  reads_keys = Variant.reads_keys

  @property
  def parts(self) -> tuple[Variant, ...]:
    """The variants of all layers."""
    raise NotImplementedError

  def which(self, n: int) -> int:
    """Returns the index in `parts` of the variant of layer n."""
    raise NotImplementedError

  def formed(self, parts: tuple[Variant, ...]) -> "Layered":
    """Returns the same order of other variants."""
    raise NotImplementedError

  def layer(self, n):
    return self.parts[self.which(n)].layer(n)

  def overrides(self, hook):
    return any(part.overrides(hook) for part in self.parts)

  def refusal(self, encoding):
    reasons = (part.refusal(encoding) for part in self.parts if not part.mixer)
    return next((reason for reason in reasons if reason), None)

  def bidirectional(self):
    return self.formed(tuple(part.bidirectional() for part in self.parts))

  def cross(self):
    return self.formed(tuple(part.cross() for part in self.parts))


forward(Layered, Variant, hook=of_first_layer)


@attentions.register("by_layer")
@dataclasses.dataclass(frozen=True)
class LayerList(Layered):
  """Cycles through a list of variants, layer by layer. Amini et al., 2025.

      layer n uses variant n mod N

  https://arxiv.org/abs/2511.23404. As in LFM2, hybrids have layers without a period.

  variants   (a, b, b): layers 0, 3, 6, ... use a, the others use b

  >>> import transformer_jax as tj
  >>> mixed = tj.attentions.build("by_layer((window(8), multihead, multihead))")
  >>> [mixed.layer(n).name for n in range(4)]
  ['window', 'multihead', 'multihead', 'window']
  """

  variants: tuple[Variant, ...] = (Window(), Variant())

  def __post_init__(self):
    if not isinstance(self.variants, tuple) or not self.variants:
      raise SpecError(
        f"by_layer: variants is {self.variants!r}; write a list of variants, as in"
        " by_layer((window(8), multihead, multihead))"
      )
    built = tuple(attentions.build(variant) for variant in self.variants)
    object.__setattr__(self, "variants", built)

  @property
  def parts(self):
    return self.variants

  def which(self, n):
    return n % len(self.variants)

  def formed(self, parts):
    return dataclasses.replace(self, variants=parts)
