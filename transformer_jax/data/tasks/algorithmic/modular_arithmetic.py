"""Modular arithmetic. Delétang et al., 2022. https://arxiv.org/abs/2207.02098"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from transformer_jax.data.base import tasks
from transformer_jax.data.tasks.algorithmic.base import Strings, below

MODULUS = 5
PLUS, MINUS, TIMES = range(3)


@tasks.register("modular_arithmetic")
@dataclasses.dataclass(frozen=True)
class ModularArithmetic(Strings):
  """Computes d+d*d-d... modulo 5, products first. Chance: 20 %.

  The symbols are the digits 0 to 4, then + - *. The length counts them; an expression
  of even length does not exist and has one symbol less.

  >>> import transformer_jax as tj
  >>> tj.tasks.build("modular_arithmetic").problem(5)  # 4 + 3 + 3
  ([4, 5, 3, 5, 3], [0])
  """

  symbols: ClassVar[int] = MODULUS + 3
  stops: ClassVar[bool] = False
  answers: ClassVar[int] = MODULUS

  def sizes(self, length):
    return length - 1 + length % 2, 1

  def strings(self, random_N, length, max_length):
    place_L = jnp.arange(self.sizes(max_length)[0])
    random_L = random_N[: place_L.size]
    digit_L, operator_L = below(MODULUS, random_L), below(3, random_L)
    prompt_L = jnp.where(place_L % 2 == 0, digit_L, MODULUS + operator_L)
    # Symbols beyond the end add zero.
    beyond_L = place_L >= self.sizes(length)[0]
    value = evaluate(
      jnp.where(beyond_L, 0, digit_L)[::2], jnp.where(beyond_L, PLUS, operator_L)[1::2]
    )
    return prompt_L, value[None]


def evaluate(digit_N: jax.Array, operator_N: jax.Array) -> jax.Array:
  """Returns digit[0] operator[0] digit[1] operator[1] ... modulo 5, products first."""

  def read(carry, step):
    (total, product), (operator, digit) = carry, step
    times = operator == TIMES
    signed = jnp.where(operator == MINUS, -digit, digit)
    total = jnp.where(times, total, total + product)
    product = jnp.where(times, product * digit, signed)
    return (total % MODULUS, product % MODULUS), None

  steps = operator_N[: digit_N.size - 1], digit_N[1:]
  (total, product), _ = jax.lax.scan(read, (jnp.int32(0), digit_N[0]), steps)
  return (total + product) % MODULUS
