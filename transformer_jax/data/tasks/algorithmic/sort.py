"""Sort symbols."""

import dataclasses

import jax.numpy as jnp

from transformer_jax.data.base import tasks
from transformer_jax.data.tasks.algorithmic.base import Strings, below


@tasks.register("sort")
@dataclasses.dataclass(frozen=True)
class Sort(Strings):
  """Writes the prompt's symbols in ascending order. The length counts them.

  >>> import transformer_jax as tj
  >>> tj.tasks.build("sort").problem(5)
  ([12, 15, 5, 0, 3], [0, 3, 5, 12, 15])
  """

  symbols: int = 16

  @property
  def answers(self) -> int:
    return self.symbols

  def sizes(self, length):
    return length, length

  def strings(self, random_N, length, max_length):
    drawn_L = below(self.symbols, random_N)
    beyond_L = jnp.arange(max_length) >= length
    # Symbols beyond the length become larger than any, so they sort behind the answer.
    return drawn_L, jnp.sort(jnp.where(beyond_L, self.symbols, drawn_L))
