"""Compute a square root. Delétang et al., 2022. https://arxiv.org/abs/2207.02098"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from transformer_jax.data.base import tasks
from transformer_jax.data.tasks.algorithmic.base import Strings, from_end
from transformer_jax.data.tasks.algorithmic.binary_addition import positive


@tasks.register("sqrt")
@dataclasses.dataclass(frozen=True)
class Sqrt(Strings):
  """Computes the whole part of a square root. Chance: 50 %.

  Numbers are binary, highest bit first; the length counts the bits of the square, from
  1 to 2**length - 1, and the root has half as many, rounded up.

  >>> import transformer_jax as tj
  >>> tj.tasks.build("sqrt").problem(6)  # of 54
  ([1, 1, 0, 1, 1, 0], [1, 1, 1])
  """

  symbols: ClassVar[int] = 2
  stops: ClassVar[bool] = False
  answers: ClassVar[int] = 2

  def sizes(self, length):
    return length, (length + 1) // 2

  def strings(self, random_N, length, max_length):
    bit_L = positive(random_N, length)
    return from_end(bit_L, length), from_end(root(bit_L), (length + 1) // 2)


def root(bit_L: jax.Array) -> jax.Array:
  """Returns the whole part of a square root, digit by digit as by hand.

  All numbers are bits, lowest first.
  """
  pair_A2 = jnp.pad(bit_L, (0, bit_L.size % 2)).reshape(-1, 2)
  zero_A = jnp.zeros(pair_A2.shape[0] + 2, jnp.int32)

  def next_digit(carry, pair_2):
    rest_A, root_A = carry
    rest_A = jnp.append(pair_2, rest_A[:-2])
    twice_A = jnp.append(jnp.array([1, 0]), root_A[:-2])
    less_A, fits = subtract(rest_A, twice_A)
    root_A = jnp.append(fits, root_A[:-1]).astype(jnp.int32)
    return (jnp.where(fits, less_A, rest_A), root_A), None

  (_, root_A), _ = jax.lax.scan(next_digit, (zero_A, zero_A), pair_A2, reverse=True)
  return root_A[:-2]


def subtract(bit_A: jax.Array, from_A: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns the bits of a difference, lowest first, and whether it is not negative."""
  digit_A = bit_A - from_A
  # Equal bits pass a borrow on; others decide: the last decided one counts.
  decided_A = jax.lax.cummax(jnp.where(digit_A == 0, -1, jnp.arange(digit_A.size)))
  borrow_A = (decided_A >= 0) & (digit_A[decided_A] < 0)
  return (digit_A - jnp.pad(borrow_A, (1, 0))[:-1]) & 1, ~borrow_A[-1]
