"""Repeat one symbol. Kazemnejad et al., 2023. https://arxiv.org/abs/2305.19466"""

import dataclasses

import jax.numpy as jnp

from transformer_jax.data.base import tasks
from transformer_jax.data.tasks.algorithmic.base import Strings, below
from transformer_jax.spec import SpecError


@tasks.register("repeat")
@dataclasses.dataclass(frozen=True)
class Repeat(Strings):
  """Writes one symbol as often as the prompt has it. The length counts the latter.

  repeat: Kazemnejad's rsc; repeat(times=2): rsc2x; repeat(other=True): rdc.

  times   how often to write a symbol for each one in the prompt
  other   whether to write another symbol; the prompt then starts with the two

  >>> import transformer_jax as tj
  >>> tj.tasks.build("repeat(times=2)").problem(3)
  ([12, 12, 12], [12, 12, 12, 12, 12, 12])
  """

  symbols: int = 16
  times: int = 1
  other: bool = False

  def __post_init__(self):
    super().__post_init__()
    if self.other and self.symbols < 2:
      raise SpecError("repeat: one symbol has no other; write symbols=2 or more")

  @property
  def answers(self) -> int:
    return self.symbols

  def sizes(self, length):
    return length + 2 * self.other, self.times * length

  def numbers(self, max_length):
    return 2

  def strings(self, random_N, length, max_length):
    prompt, answer = self.sizes(max_length)
    read = written = below(self.symbols, random_N[0])
    prompt_P = jnp.full(prompt, read)
    if self.other:
      written = (read + 1 + below(self.symbols - 1, random_N[1])) % self.symbols
      prompt_P = prompt_P.at[1].set(written)
    return prompt_P, jnp.full(answer, written)
