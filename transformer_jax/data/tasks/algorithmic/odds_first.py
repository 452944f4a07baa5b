"""Odds first. Delétang et al., 2022. https://arxiv.org/abs/2207.02098"""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from transformer_jax.data.base import tasks
from transformer_jax.data.tasks.algorithmic.base import Strings, below


@tasks.register("odds_first")
@dataclasses.dataclass(frozen=True)
class OddsFirst(Strings):
  """Writes the symbols 1, 3, 5, ... of the prompt, then 0, 2, 4, ... Chance: 50 %.

  The length counts the symbols; the first one is symbol 0, as in the published code.

  >>> import transformer_jax as tj
  >>> tj.tasks.build("odds_first(symbols=9)").problem(5)
  ([8, 0, 2, 6, 7], [0, 6, 8, 2, 7])
  """

  symbols: int = 2
  stops: ClassVar[bool] = False

  @property
  def answers(self) -> int:
    return self.symbols

  def sizes(self, length):
    return length, length

  def strings(self, random_N, length, max_length):
    drawn_L, place_L, odds = (
      below(self.symbols, random_N),
      jnp.arange(max_length),
      length // 2,
    )
    from_L = jnp.where(place_L < odds, 2 * place_L + 1, 2 * (place_L - odds))
    return drawn_L, drawn_L[jnp.minimum(from_L, max_length - 1)]
