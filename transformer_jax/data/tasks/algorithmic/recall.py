"""Associative recall: find the value of a key."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from transformer_jax.data.base import tasks
from transformer_jax.data.tasks.algorithmic.base import Strings, below
from transformer_jax.spec import SpecError


@tasks.register("recall")
@dataclasses.dataclass(frozen=True)
class Recall(Strings):
  """Associative recall: the value of the queried key. The length counts the pairs.

  The prompt is key value key value ... key; its keys differ, so `keys` bounds the
  length. Graves et al., 2014. https://arxiv.org/abs/1410.5401

  >>> import transformer_jax as tj
  >>> tj.tasks.build("recall(keys=4, values=9)").problem(3)
  ([9, 6, 12, 7, 10, 1, 10], [1])
  """

  keys: int = 128
  values: int = 16
  stops: ClassVar[bool] = False

  @property
  def symbols(self) -> int:
    """Values come first, then keys."""
    return self.values + self.keys

  @property
  def answers(self) -> int:
    return self.values

  def sizes(self, length):
    return 2 * length + 1, 1

  def numbers(self, max_length):
    return 1 + self.keys + max_length

  def strings(self, random_N, length, max_length):
    if max_length > self.keys:
      raise SpecError(
        f"recall: {max_length} pairs need as many different keys, but there are"
        f" {self.keys}; write recall(keys={max_length}) or ask for shorter lengths"
      )
    asked = below(length, random_N[0])
    key_L = self.values + jnp.argsort(random_N[1 : 1 + self.keys])[:max_length]
    value_L = below(self.values, random_N[1 + self.keys :])
    pairs_P = jnp.stack([key_L, value_L], axis=1).reshape(-1)
    prompt_P = jnp.append(pairs_P, 0).at[2 * length].set(key_L[asked])
    return prompt_P, value_L[asked][None]
