"""Stack manipulation. Delétang et al., 2022. https://arxiv.org/abs/2207.02098"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from transformer_jax.data.base import tasks
from transformer_jax.data.tasks.algorithmic.base import Strings, below
from transformer_jax.data.tasks.algorithmic.prompt_labels import of_prompt

POP, PUSH = 2, 3  # PUSH + b pushes the bit b


@tasks.register("stack_manipulation")
@dataclasses.dataclass(frozen=True)
class StackManipulation(Strings):
  """Carries out pops and pushes on a stack of bits and reads it from top to bottom.

  The prompt is the stack from bottom to top, of 1 to length - 1 bits, then actions:
  2 pops, 3 pushes 0, 4 pushes 1; a pop of nothing does nothing. After the last bit the
  answer has the terminator 2 and zeros. The length counts bits and actions.
  Chance: 50 % a bit.

  >>> import transformer_jax as tj
  >>> # The stack 1 1 0 1 1, then 3 pushes 0; read from the top, and 2 ends it.
  >>> tj.tasks.build("stack_manipulation").problem(6)
  ([1, 1, 0, 1, 1, 3], [0, 1, 1, 0, 1, 1, 2])
  """

  symbols: ClassVar[int] = 5
  stops: ClassVar[bool] = False
  answers: ClassVar[int] = 2
  terminator: ClassVar[int] = 2

  def sizes(self, length):
    return length, length + 1

  def numbers(self, max_length):
    return 1 + max_length

  def strings(self, random_N, length, max_length):
    bits = 1 + below(jnp.maximum(length - 1, 1), random_N[0])
    is_bit_L = jnp.arange(max_length) < bits
    symbol_L = jnp.where(is_bit_L, below(2, random_N[1:]), 2 + below(3, random_N[1:]))
    # The initial stack is a sequence of pushes.
    action_L = jnp.where(is_bit_L, PUSH + symbol_L, symbol_L)
    return symbol_L, final_stack(action_L, length)

  def probe_labels(self):
    """Returns `height`: bits on the stack after each symbol; 15 stands for more."""

    def height(symbol_BL, inside_BL):
      step_BL = jnp.where(symbol_BL == POP, -1, 1)
      sum_BL = jnp.cumsum(jnp.where(inside_BL, step_BL, 0), axis=1)
      return sum_BL - jnp.minimum(jax.lax.cummin(sum_BL, axis=1), 0)

    return {"height": of_prompt(16, height, ordered=True)}


def final_stack(action_L: jax.Array, length: jax.Array) -> jax.Array:
  """Returns the stack after `length` actions, top first, then 2, then zeros."""
  real_L = jnp.arange(action_L.size) < length
  pushes_L = real_L & (action_L >= PUSH)
  sum_L = jnp.cumsum(jnp.where(real_L, jnp.where(pushes_L, 1, -1), 0))
  # Each pop of an empty stack raises all later depths by one.
  depth_L = sum_L - jnp.minimum(jax.lax.cummin(sum_L), 0)
  # A bit remains if the stack is never lower than just after its push.
  stays_L = pushes_L & (jax.lax.cummin(depth_L, reverse=True) >= depth_L)
  size, nowhere = depth_L[-1], action_L.size + 1
  answer_A = jnp.zeros(nowhere, jnp.int32).at[size].set(2)
  from_top_L = jnp.where(stays_L, size - depth_L, nowhere)
  return answer_A.at[from_top_L].set(action_L - PUSH, mode="drop")
