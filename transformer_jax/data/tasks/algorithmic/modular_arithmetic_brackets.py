"""Arithmetic with brackets. Delétang et al., 2022. https://arxiv.org/abs/2207.02098"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from transformer_jax.data.base import tasks
from transformer_jax.data.tasks.algorithmic.base import Strings, below
from transformer_jax.data.tasks.algorithmic.modular_arithmetic import (
  MINUS,
  MODULUS,
  PLUS,
)
from transformer_jax.data.tasks.algorithmic.prompt_labels import depth


@tasks.register("modular_arithmetic_brackets")
@dataclasses.dataclass(frozen=True)
class ModularArithmeticBrackets(Strings):
  """Computes an expression with brackets modulo 5. Chance: 20 %.

  The symbols are the digits 0 to 4, then + - * ( ). The length counts them.

  >>> import transformer_jax as tj
  >>> task = tj.tasks.build("modular_arithmetic_brackets")
  >>> task.problem(6)  # (0 + -3)
  ([8, 0, 5, 6, 3, 9], [2])
  """

  symbols: ClassVar[int] = MODULUS + 5
  stops: ClassVar[bool] = False
  answers: ClassVar[int] = MODULUS

  def sizes(self, length):
    return length, 1

  def numbers(self, max_length):
    return 2 * max_length

  def strings(self, random_N, length, max_length):
    symbol_L, value = expression(random_N, length, operators=3)
    return symbol_L, value[None]

  def probe_labels(self):
    """Returns `depth`: open brackets after each symbol; 7 stands for more."""
    return {"depth": depth(opens=MODULUS + 3, closes=MODULUS + 4)}


def expression(
  random_N: jax.Array, length: jax.Array, operators: int
) -> tuple[jax.Array, jax.Array]:
  """Draws an expression of `length` symbols; returns them and its value modulo 5.

  By length, an expression is d, -d, (d), (-d), or from five symbols on (L+R), where
  the length of L is drawn from 1 up, and so on within L and R.

  random_N    two numbers for each place
  operators   number of operators + - *; the symbols are digits, these, and the brackets
  """
  draw_L2 = random_N.reshape(-1, 2)
  size_L, left_L = parts(draw_L2[:, 0], length)
  digit_L, operator_L = below(MODULUS, draw_L2[:, 1]), below(operators, draw_L2[:, 1])
  starts_L = size_L > 0
  # Of the places where no part starts, the operators are those before a right part.
  closes_L = ~starts_L & ~jnp.append(starts_L[1:], False)
  bracket = MODULUS + operators
  opens_L = jnp.where(size_L == 2, MODULUS + MINUS, bracket)
  starting_L = jnp.where(size_L == 1, digit_L, opens_L)
  inside_L = jnp.where(closes_L, bracket + 1, MODULUS + operator_L)
  symbol_L = jnp.where(starts_L, starting_L, inside_L)
  return symbol_L, value(size_L, left_L, digit_L, operator_L)


def parts(random_L: jax.Array, length: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Draws the shape of an expression.

  Returns the size of the part that starts at each place, 0 where none does, and the
  size of the first part within it.
  """
  place_L = jnp.arange(random_L.size)

  def first_part(size_L):
    drawn_L = 1 + below(jnp.maximum(size_L - 4, 1), random_L)
    # -d and (d) hold a digit, (-d) holds -d, a digit holds nothing.
    return jnp.where(size_L >= 5, drawn_L, size_L // 2)

  def split(size_L):
    left_L = first_part(size_L)
    right_L = jnp.where(size_L >= 5, place_L + left_L + 2, random_L.size)
    next_L = jnp.pad(left_L, (1, 0))[:-1].at[0].set(length)
    return next_L.at[right_L].set(size_L - left_L - 3, mode="drop")

  size_L = settle(split, jnp.where(place_L == 0, length, 0))
  return size_L, first_part(size_L)


def value(
  size_L: jax.Array, left_L: jax.Array, digit_L: jax.Array, operator_L: jax.Array
) -> jax.Array:
  """Returns the value of an expression from the sizes of its parts."""
  place_L = jnp.arange(size_L.size)
  first_L = jnp.minimum(place_L + 1, size_L.size - 1)
  operator_L = operator_L[first_L + left_L]
  second_L = first_L + left_L + 1

  def compute(value_L):
    first, second = value_L[first_L], value_L[second_L]
    product_L = first * second
    sum_L = jnp.where(operator_L == PLUS, first + second, first - second)
    whole_L = jnp.where(operator_L > MINUS, product_L, sum_L)
    one_L = jnp.where(size_L == 2, -first, first)
    inner_L = jnp.where(size_L >= 5, whole_L, one_L)
    return jnp.where(size_L <= 1, digit_L, inner_L) % MODULUS

  return settle(compute, jnp.zeros_like(digit_L))[0]


def settle(step: Callable[[Any], Any], start_L: jax.Array) -> jax.Array:
  """Repeats a step up to its fixed point: as often as brackets are nested."""

  def changed(pair):
    before_L, after_L = pair
    return jnp.any(before_L != after_L)

  def again(pair):
    _, after_L = pair
    return after_L, step(after_L)

  return jax.lax.while_loop(changed, again, (start_L, step(start_L)))[1]
