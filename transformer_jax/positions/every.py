"""A different encoding in every n-th layer. Yang et al., 2025.

https://arxiv.org/abs/2501.18795
"""

import dataclasses

from transformer_jax.forwarding import computed
from transformer_jax.positions.base import PositionalEncoding, positions
from transformer_jax.positions.rope import Rope
from transformer_jax.positions.shared.schedule import Schedule


@positions.register("every")
@dataclasses.dataclass(frozen=True)
class Every(Schedule):
  """Uses a special encoding in the last of every `period` layers.

      layers n with n + 1 divisible by the period use `special`, the others `rest`

  `every(4, none, rope)` is RNoPE, as in SmolLM3 and Llama 4: layers 3, 7, 11, ... of
  layers 0, 1, 2, ... have no positions.

  period    1: all layers are special; more than there are layers: none is
  special   the encoding of these layers
  rest      the encoding of the others

  >>> import transformer_jax as tj
  >>> rnope = tj.positions.build("every(4, none, rope)")
  >>> [rnope.layer(n).name for n in range(5)]
  ['rope', 'rope', 'rope', 'none', 'rope']
  """

  period: int = 4
  special: PositionalEncoding = PositionalEncoding()
  rest: PositionalEncoding = Rope()

  def __post_init__(self):
    if not isinstance(self.period, int) or self.period < 1:
      raise ValueError(f"every: period is {self.period!r}; write every(4, none, rope)")
    object.__setattr__(self, "special", positions.build(self.special))
    object.__setattr__(self, "rest", positions.build(self.rest))
    self.check("every")

  @computed
  def parts(self):
    return self.special, self.rest

  def which(self, n):
    return int((n + 1) % self.period != 0)

  def bidirectional(self):
    special, rest = (part.bidirectional() for part in self.parts)
    return dataclasses.replace(self, special=special, rest=rest)
