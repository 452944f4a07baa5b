"""Copy a string."""

import dataclasses

from transformer_jax.data.base import tasks
from transformer_jax.data.strings import Strings, below, from_end


@tasks.register("copy")
@dataclasses.dataclass(frozen=True)
class Copy(Strings):
  """Writes the prompt again. The length counts its symbols.

  With the same key a longer string has more symbols on the left and the same last ones,
  which `scored` selects.
  """

  symbols: int = 16
  scored: int | None = None

  def sizes(self, length):
    return length, length

  def strings(self, random_N, length, longest):
    string_L = from_end(below(self.symbols, random_N), length)
    return string_L, string_L
