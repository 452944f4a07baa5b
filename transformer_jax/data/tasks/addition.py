"""Add two numbers, digit by digit."""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.data.base import tasks
from transformer_jax.data.strings import Strings, below, from_end


@tasks.register("addition")
@dataclasses.dataclass(frozen=True)
class Addition(Strings):
  """Adds two numbers below base**length, written with leading zeros.

  The length counts the digits of an operand; the answer has one more, most significant
  first, or least significant first when `reversed`.
  """

  base: int = 10
  reversed: bool = False

  @property
  def symbols(self) -> int:
    """The digits and the plus sign, which is the last symbol."""
    return self.base + 1

  def sizes(self, length):
    return 2 * length + 1, length + 1

  def numbers(self, longest):
    return 2 * longest

  def strings(self, random_N, length, longest):
    first_L, second_L = below(self.base, random_N).reshape(longest, 2).T
    prompt_P = jnp.zeros(2 * longest + 1, jnp.int32)
    prompt_P = prompt_P.at[:longest].set(from_end(first_L, length))
    prompt_P = prompt_P.at[length].set(self.base)
    prompt_P = jax.lax.dynamic_update_slice(
      prompt_P, from_end(second_L, length), (length + 1,)
    )
    beyond_L = jnp.arange(longest) >= length
    sum_A = add(jnp.where(beyond_L, 0, first_L + second_L), self.base)
    return prompt_P, sum_A if self.reversed else from_end(sum_A, length + 1)


def add(sum_L: jax.Array, base: int) -> jax.Array:
  """Carries: returns the digits of sum(sum_L * base**L), least significant first.

  sum_L: sums of two digits, 0 to 2 * base - 2
  """
  # A sum of base - 1 passes a carry on; any other decides: the last decided one counts.
  decides_L = jnp.where(sum_L == base - 1, -1, jnp.arange(sum_L.shape[0]))
  decided_L = jax.lax.cummax(decides_L)
  carry_L = (decided_L >= 0) & (sum_L[decided_L] >= base)
  return (jnp.pad(sum_L, (0, 1)) + jnp.pad(carry_L, (1, 0))) % base
