"""Parity of a bit string."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from transformer_jax.data.base import tasks
from transformer_jax.data.tasks.algorithmic.base import Strings, below
from transformer_jax.data.tasks.algorithmic.prompt_labels import of_prompt


@tasks.register("parity")
@dataclasses.dataclass(frozen=True)
class Parity(Strings):
  """Answers 1 when the ones are odd in number, else 0. The length counts the bits.

  Hahn, 2020: hard for attention at any length. https://arxiv.org/abs/1906.06755

  >>> import transformer_jax as tj
  >>> tj.tasks.build("parity").problem(5)
  ([0, 1, 1, 0, 1], [1])
  """

  symbols: ClassVar[int] = 2
  stops: ClassVar[bool] = False
  answers: ClassVar[int] = 2

  def sizes(self, length):
    return length, 1

  def strings(self, random_N, length, max_length):
    bit_L = below(2, random_N)
    odd = jnp.sum(jnp.where(jnp.arange(max_length) < length, bit_L, 0)) % 2
    return bit_L, odd[None]

  def probe_labels(self):
    """Returns `state`: whether the ones so far are odd in number."""

    def odd(symbol_BL, inside_BL):
      return jnp.cumsum(jnp.where(inside_BL, symbol_BL, 0), axis=1) % 2

    return {"state": of_prompt(2, odd)}
