"""Binary multiplication. Delétang et al., 2022. https://arxiv.org/abs/2207.02098"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.data.base import tasks
from transformer_jax.data.tasks.algorithmic.addition import add
from transformer_jax.data.tasks.algorithmic.binary_addition import BinaryAddition


@tasks.register("binary_multiplication")
@dataclasses.dataclass(frozen=True)
class BinaryMultiplication(BinaryAddition):
  """Multiplies two binary numbers, written as in binary_addition. Chance: 50 % a bit.

  The product of a prompt of one bit is empty and that of two bits is 0.

  >>> import transformer_jax as tj
  >>> tj.tasks.build("binary_multiplication").problem(7)  # 16 * 1 = 16
  ([0, 0, 0, 0, 1, 2, 1], [0, 0, 0, 0, 1, 2, 0])
  """

  def sizes(self, length):
    return length, length

  def combine(self, first_L, second_L):
    return multiply(first_L, second_L)


def multiply(first_L: jax.Array, second_L: jax.Array) -> jax.Array:
  """Returns the L lowest bits of a product, lowest first."""

  def add_row(sum_L, bit):
    return jnp.pad(sum_L, (1, 0))[:-1] + bit * second_L, None

  zero_L = jnp.zeros_like(second_L)
  sum_L, _ = jax.lax.scan(add_row, zero_L, first_L, reverse=True)
  # Each step halves the excess over 2 in a column; with at most 2, `add` can carry.
  for _ in range(first_L.size.bit_length()):
    sum_L = (sum_L & 1) + jnp.pad(sum_L >> 1, (1, 0))[:-1]
  return add(sum_L, 2)[:-1]
