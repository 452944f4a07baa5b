"""Solve an equation. Delétang et al., 2022. https://arxiv.org/abs/2207.02098"""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from transformer_jax.data.base import tasks
from transformer_jax.data.tasks.algorithmic.base import Strings, below
from transformer_jax.data.tasks.algorithmic.modular_arithmetic import MODULUS
from transformer_jax.data.tasks.algorithmic.modular_arithmetic_brackets import (
  expression,
)
from transformer_jax.data.tasks.algorithmic.prompt_labels import depth

X, EQUALS = MODULUS + 4, MODULUS + 5


@tasks.register("solve_equation")
@dataclasses.dataclass(frozen=True)
class SolveEquation(Strings):
  """Finds the digit x that makes an equation true modulo 5. Chance: 20 %.

  The prompt is an expression with brackets, with x for one of its digits, and =value.
  The symbols are the digits 0 to 4, then + - ( ) x =. The length counts them; there is
  no equation of one or two symbols, so those prompts are zeros, and so is the answer.

  >>> import transformer_jax as tj
  >>> tj.tasks.build("solve_equation").problem(7)  # (x - 2) = 1
  ([7, 9, 6, 2, 8, 10, 1], [3])
  """

  symbols: ClassVar[int] = MODULUS + 6
  stops: ClassVar[bool] = False
  answers: ClassVar[int] = MODULUS

  def sizes(self, length):
    return length, 1

  def numbers(self, max_length):
    return 1 + 2 * max_length

  def strings(self, random_N, length, max_length):
    size, place_L = jnp.maximum(length - 2, 1), jnp.arange(max_length)
    symbol_L, value = expression(random_N[1:], size, operators=2)
    # The digit at or after a place drawn from all of them, as published.
    after_L = (place_L - below(size, random_N[0])) % size
    is_digit_L = (symbol_L < MODULUS) & (place_L < size)
    x = jnp.argmin(jnp.where(is_digit_L, after_L, max_length))
    prompt_L = symbol_L.at[x].set(X)
    prompt_L = jnp.where(place_L == size, EQUALS, prompt_L)
    prompt_L = jnp.where(place_L > size, value, prompt_L)
    none = length < 3
    return jnp.where(none, 0, prompt_L), jnp.where(none, 0, symbol_L[x])[None]

  def probe_labels(self):
    """Returns `depth`: open brackets after each symbol; 7 stands for more."""
    return {"depth": depth(opens=MODULUS + 2, closes=MODULUS + 3)}
