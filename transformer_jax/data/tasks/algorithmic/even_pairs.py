"""Even pairs. Delétang et al., 2022. https://arxiv.org/abs/2207.02098"""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from transformer_jax.data.base import tasks
from transformer_jax.data.tasks.algorithmic.base import Strings, below
from transformer_jax.data.tasks.algorithmic.prompt_labels import of_prompt


@tasks.register("even_pairs")
@dataclasses.dataclass(frozen=True)
class EvenPairs(Strings):
  """Answers 1 when the pairs 01 and 10 are odd in number, else 0. Chance: 50 %.

  That is so when the string ends in another bit than it starts with. The length counts
  the bits.

  >>> import transformer_jax as tj
  >>> tj.tasks.build("even_pairs").problem(5)
  ([0, 1, 1, 0, 1], [1])
  """

  symbols: ClassVar[int] = 2
  stops: ClassVar[bool] = False
  answers: ClassVar[int] = 2

  def sizes(self, length):
    return length, 1

  def strings(self, random_N, length, max_length):
    bit_L = below(2, random_N)
    return bit_L, (bit_L[0] ^ bit_L[length - 1])[None]

  def probe_labels(self):
    """Returns `state`: whether the pairs 01 and 10 so far are odd in number."""

    def odd(symbol_BL, inside_BL):
      first_B1 = jnp.argmax(inside_BL, axis=1, keepdims=True)
      return symbol_BL ^ jnp.take_along_axis(symbol_BL, first_B1, axis=1)

    return {"state": of_prompt(2, odd)}
