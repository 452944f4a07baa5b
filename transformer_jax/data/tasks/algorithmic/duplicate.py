"""Duplicate a string. Delétang et al., 2022. https://arxiv.org/abs/2207.02098"""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from transformer_jax.data.base import tasks
from transformer_jax.data.tasks.algorithmic.base import Strings, below


@tasks.register("duplicate")
@dataclasses.dataclass(frozen=True)
class Duplicate(Strings):
  """Writes the prompt twice. The length counts its symbols. Chance: 50 %.

  >>> import transformer_jax as tj
  >>> tj.tasks.build("duplicate").problem(4)
  ([0, 1, 1, 0], [0, 1, 1, 0, 0, 1, 1, 0])
  """

  symbols: int = 2
  stops: ClassVar[bool] = False

  @property
  def answers(self) -> int:
    return self.symbols

  def sizes(self, length):
    return length, 2 * length

  def strings(self, random_N, length, max_length):
    drawn_L = below(self.symbols, random_N)
    return drawn_L, drawn_L[jnp.arange(2 * max_length) % length]
