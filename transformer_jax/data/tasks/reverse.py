"""Reverse a string."""

import dataclasses

from transformer_jax.data.base import tasks
from transformer_jax.data.strings import Strings, below, from_end


@tasks.register("reverse")
@dataclasses.dataclass(frozen=True)
class Reverse(Strings):
  """Writes the prompt from its end to its start. The length counts its symbols.

  With the same key a longer prompt has more symbols on the right, so the answer keeps
  its last symbols, which `scored` selects.
  """

  symbols: int = 16
  scored: int | None = None

  def sizes(self, length):
    return length, length

  def strings(self, random_N, length, longest):
    drawn_L = below(self.symbols, random_N)
    return drawn_L, from_end(drawn_L, length)
