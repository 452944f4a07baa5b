"""Mental arithmetic. Allen-Zhu, 2025: Canon layers. https://arxiv.org/abs/2512.17351"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from transformer_jax.data.base import tasks
from transformer_jax.data.tasks.algorithmic.base import Strings, below
from transformer_jax.spec import SpecError

PLUS, MINUS = range(2)
OPERATORS = 3  # + - *


@tasks.register("mano")
@dataclasses.dataclass(frozen=True)
class Mano(Strings):
  """Mano: the value of an expression in prefix notation, modulo a number.

  An expression of n operators is + or - or *, an expression of 0 to n - 1 operators,
  each equally likely, and one of the rest; without operators it is a number. The length
  counts the operators, 10 to 16 in the paper, whose texts also say the length and have
  two tokens for each operator.

  modulus   of all numbers: they are the first symbols, and the operators the last three

  >>> import transformer_jax as tj
  >>> tj.tasks.build("mano(modulus=5)").problem(2)  # 5 is +: 0 + (3 + 3)
  ([5, 0, 5, 3, 3], [1])
  """

  modulus: int = 23
  stops: ClassVar[bool] = False

  def __post_init__(self):
    super().__post_init__()
    if not 2 <= self.modulus <= 2**15:
      raise SpecError(
        f"mano: modulus is {self.modulus}; write a number from 2 to {2**15}, whose"
        " products are below 2**31"
      )

  @property
  def symbols(self) -> int:
    return self.modulus + OPERATORS

  @property
  def answers(self) -> int:
    return self.modulus

  def sizes(self, length):
    return 2 * length + 1, 1

  def numbers(self, max_length):
    return 2 * self.sizes(max_length)[0]

  def strings(self, random_N, length, max_length):
    random_PT = random_N.reshape(-1, 2)
    size_P, left_P = shape_of(random_PT[:, 0], length)
    number_P = below(self.modulus, random_PT[:, 1])
    operator_P = below(OPERATORS, random_PT[:, 1])
    prompt_P = jnp.where(size_P > 0, self.modulus + operator_P, number_P)
    value_P = evaluate(size_P, left_P, number_P, operator_P, self.modulus)
    return prompt_P, value_P[:1]


def shape_of(random_P: jax.Array, length: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Draws the shape of an expression of `length` operators, at the first place.

  Returns the number of operators of the part that starts at each place, and of the
  first part within it.
  """
  last = random_P.size - 1

  def visit(place, sizes):
    size_P, left_P = sizes
    size = size_P[place]
    left = below(jnp.maximum(size, 1), random_P[place])
    second = jnp.where(size > 0, place + 2 + 2 * left, last + 1)
    first = jnp.where(size > 0, place + 1, last + 1)
    size_P = size_P.at[first].set(left, mode="drop")
    size_P = size_P.at[second].set(size - 1 - left, mode="drop")
    return size_P, left_P.at[place].set(left)

  start_P = jnp.zeros(random_P.size, jnp.int32)
  sizes = start_P.at[0].set(length), start_P
  return jax.lax.fori_loop(0, random_P.size, visit, sizes)


def evaluate(
  size_P: jax.Array,
  left_P: jax.Array,
  number_P: jax.Array,
  operator_P: jax.Array,
  modulus: int,
) -> jax.Array:
  """Returns the value of the part that starts at each place.

  size_P, left_P   from `shape_of`
  number_P         numbers, where a part has no operator
  operator_P       of + - *, elsewhere
  """
  last = size_P.size - 1

  def visit(n, value_P):
    place = last - n
    first = value_P[jnp.minimum(place + 1, last)]
    second = value_P[jnp.minimum(place + 2 + 2 * left_P[place], last)]
    operator = operator_P[place]
    linear = jnp.where(operator == PLUS, first + second, first - second)
    whole = jnp.where(operator > MINUS, first * second, linear) % modulus
    return value_P.at[place].set(jnp.where(size_P[place] > 0, whole, number_P[place]))

  return jax.lax.fori_loop(0, size_P.size, visit, jnp.zeros_like(number_P))
