"""Encodings by layer, as in hybrids such as Yang et al., 2025.

https://arxiv.org/abs/2501.18795
"""

import dataclasses

from transformer_jax.forwarding import computed
from transformer_jax.positions.base import PositionalEncoding, positions
from transformer_jax.positions.rope import Rope
from transformer_jax.positions.shared.schedule import Schedule


@positions.register("by_layer")
@dataclasses.dataclass(frozen=True)
class ByLayer(Schedule):
  """Cycles through a list of encodings, layer by layer.

      layer n uses encoding n mod N

  encodings   (a, b): layers 0, 2, 4, ... use a and layers 1, 3, 5, ... use b

  >>> import transformer_jax as tj
  >>> mixed = tj.positions.build("by_layer((rope, alibi, none))")
  >>> [mixed.layer(n).name for n in range(5)]
  ['rope', 'alibi', 'none', 'rope', 'alibi']
  """

  encodings: tuple[PositionalEncoding, ...] = (Rope(), PositionalEncoding())

  def __post_init__(self):
    if not isinstance(self.encodings, tuple) or not self.encodings:
      raise ValueError("by_layer takes a list of encodings: by_layer((rope, none))")
    built = tuple(positions.build(encoding) for encoding in self.encodings)
    object.__setattr__(self, "encodings", built)
    self.check("by_layer")

  @computed
  def parts(self):
    return self.encodings

  def which(self, n):
    return n % len(self.encodings)

  def bidirectional(self):
    both = tuple(encoding.bidirectional() for encoding in self.encodings)
    return dataclasses.replace(self, encodings=both)
