"""Binary addition. Delétang et al., 2022. https://arxiv.org/abs/2207.02098"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from transformer_jax.data.base import tasks
from transformer_jax.data.tasks.algorithmic.addition import add
from transformer_jax.data.tasks.algorithmic.base import Strings, below

OPERATOR = 2  # stands between the numbers, and after the answer


@tasks.register("binary_addition")
@dataclasses.dataclass(frozen=True)
class BinaryAddition(Strings):
  """Adds two binary numbers, written with their lowest bit first. Chance: 50 % a bit.

  The prompt is number 2 number, split at random; the answer is the sum without zeros at
  its end, then the terminator 2, then zeros. The length counts the prompt's symbols. A
  prompt of one or two bits is a number below 2**length - 1, and its sum is itself.

  >>> import transformer_jax as tj
  >>> tj.tasks.build("binary_addition").problem(7)  # 16 + 1 = 17
  ([0, 0, 0, 0, 1, 2, 1], [1, 0, 0, 0, 1, 2, 0, 0])
  """

  symbols: ClassVar[int] = 3
  stops: ClassVar[bool] = False
  answers: ClassVar[int] = 2
  terminator: ClassVar[int] = OPERATOR

  def sizes(self, length):
    return length, length + 1

  def numbers(self, max_length):
    return 2 + 2 * max_length

  def strings(self, random_N, length, max_length):
    first, second = random_N.reshape(-1, 2).T
    place_L, short = jnp.arange(max_length), length <= 2
    size = jnp.where(short, length, 1 + below(jnp.maximum(length - 2, 1), first[0]))
    single = below((1 << jnp.minimum(length, 2)) - 1, first[1])
    first_L = jnp.where(short, bits(single, max_length), positive(first[1:], size))
    second_L = positive(second[1:], jnp.maximum(length - 1 - size, 1))
    second_L = jnp.where(short, 0, second_L)
    prompt_L = jnp.where(place_L == size, OPERATOR, first_L)
    moved_L = second_L[jnp.maximum(place_L - size - 1, 0)]
    prompt_L = jnp.where(place_L > size, moved_L, prompt_L)
    return prompt_L, self.ended(self.combine(first_L, second_L), length)

  def combine(self, first_L: jax.Array, second_L: jax.Array) -> jax.Array:
    """Returns the bits of the answer, lowest first."""
    return add(first_L + second_L, 2)

  def ended(self, bit_A: jax.Array, length: jax.Array) -> jax.Array:
    """Puts the terminator after the highest 1; zero is written 0 if there is room."""
    place_A, room = jnp.arange(bit_A.size), self.sizes(length)[1] - 1
    size = jnp.max(jnp.where(bit_A == 1, place_A + 1, 0))
    return jnp.where(place_A == jnp.maximum(size, jnp.minimum(room, 1)), 2, bit_A)


def positive(random_N: jax.Array, size: jax.Array) -> jax.Array:
  """Draws a number from 1 to 2**size - 1; returns its bits, lowest first.

  The n-th bit is the same whatever N. All numbers are equally likely, up to 2**-30.
  """
  place_N = jnp.arange(random_N.size)
  # The lowest 30 bits together are never 0; those above are drawn one by one.
  low = 1 + below((1 << jnp.minimum(size, 30)) - 1, random_N[0])
  bit_N = jnp.where(place_N < 30, bits(low, place_N.size), below(2, random_N))
  return jnp.where(place_N < size, bit_N, 0)


def bits(number: jax.Array, count: int) -> jax.Array:
  """Returns the bits of a number below 2**30, lowest first."""
  return number >> jnp.minimum(jnp.arange(count), 30) & 1
