"""Cycle navigation. Delétang et al., 2022. https://arxiv.org/abs/2207.02098"""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from transformer_jax.data.base import tasks
from transformer_jax.data.tasks.algorithmic.base import Strings, below
from transformer_jax.data.tasks.algorithmic.prompt_labels import of_prompt


@tasks.register("cycle_navigation")
@dataclasses.dataclass(frozen=True)
class CycleNavigation(Strings):
  """Cycle navigation: the end of a walk on a circle of five places. Chance: 20 %.

  The walk starts at place 0; symbols 0, 1, 2 are a step back, none, a step forward. The
  length counts them.

  >>> import transformer_jax as tj
  >>> tj.tasks.build("cycle_navigation").problem(6)  # + - + - 0 -
  ([2, 0, 2, 0, 1, 0], [4])
  """

  symbols: ClassVar[int] = 5
  stops: ClassVar[bool] = False
  answers: ClassVar[int] = 5

  def sizes(self, length):
    return length, 1

  def strings(self, random_N, length, max_length):
    symbol_L = below(3, random_N)
    step_L = jnp.where(jnp.arange(max_length) < length, symbol_L - 1, 0)
    return symbol_L, jnp.sum(step_L)[None] % 5

  def probe_labels(self):
    """Returns `state`: the place after each step."""

    def place(symbol_BL, inside_BL):
      return jnp.cumsum(jnp.where(inside_BL, symbol_BL - 1, 0), axis=1) % 5

    return {"state": of_prompt(5, place)}
