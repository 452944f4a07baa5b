"""Missing duplicate. Delétang et al., 2022. https://arxiv.org/abs/2207.02098"""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from transformer_jax.data.base import tasks
from transformer_jax.data.tasks.algorithmic.base import Strings, below


@tasks.register("missing_duplicate")
@dataclasses.dataclass(frozen=True)
class MissingDuplicate(Strings):
  """Missing duplicate: the missing bit of a string written twice. Chance: 50 %.

  A 2 replaces the bit. A 3 ends the prompt if the length, which counts all symbols,
  is odd. A prompt of one symbol is 1, and so is its answer.

  >>> import transformer_jax as tj
  >>> tj.tasks.build("missing_duplicate").problem(6)  # 1 1 _ 1 1 0: 1 1 0 twice
  ([1, 1, 2, 1, 1, 0], [0])
  """

  symbols: ClassVar[int] = 4
  stops: ClassVar[bool] = False
  answers: ClassVar[int] = 2

  def sizes(self, length):
    return length, 1

  def numbers(self, max_length):
    return 1 + max_length

  def strings(self, random_N, length, max_length):
    place_L, half = jnp.arange(max_length), jnp.maximum(length // 2, 1)
    twice_L = below(2, random_N[1:])[place_L % half]
    missing = below(2 * half, random_N[0])
    prompt_L = jnp.where(place_L == missing, 2, twice_L)
    prompt_L = jnp.where(place_L == 2 * half, 3, prompt_L)
    answer_A = jnp.where(length == 1, 1, twice_L[missing % half])[None]
    return jnp.where(length == 1, 1, prompt_L), answer_A
