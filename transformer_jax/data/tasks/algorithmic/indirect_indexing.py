"""Find a letter, then another some places away. https://arxiv.org/abs/2509.10534"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from transformer_jax.data.base import tasks
from transformer_jax.data.tasks.algorithmic.base import Strings, below
from transformer_jax.spec import SpecError


@tasks.register("indirect_indexing")
@dataclasses.dataclass(frozen=True)
class IndirectIndexing(Strings):
  """Indirect indexing: the letter at a given shift from another letter.

  The prompt is different letters, as many as the length, one of them again, and a
  shift of three symbols: a sign and two digits, `+ 0 7`. All letters within reach are
  equally likely. The paper's strings have 20 to 40 letters in training too; here
  training strings have 1 to the length.

  letters   number of letters, which bounds the length
  reach     the largest shift

  >>> import transformer_jax as tj
  >>> tj.tasks.build("indirect_indexing").problem(6)  # 38, then + 0 1
  ([42, 25, 38, 40, 58, 47, 38, 10, 0, 1], [40])
  """

  letters: int = 52
  reach: int = 15
  stops: ClassVar[bool] = False

  def __post_init__(self):
    super().__post_init__()
    if self.reach > 99:
      raise SpecError(f"indirect_indexing: reach is {self.reach}; it has two digits")

  @property
  def symbols(self) -> int:
    """Ten digits, plus, minus, then the letters."""
    return 12 + self.letters

  @property
  def answers(self) -> int:
    return self.letters

  def sizes(self, length):
    return length + 4, 1

  def numbers(self, max_length):
    return 2 + self.letters

  def strings(self, random_N, length, max_length):
    if max_length > self.letters:
      raise SpecError(
        f"indirect_indexing: {max_length} letters must differ, but there are"
        f" {self.letters}; write indirect_indexing(letters={max_length}) or ask for"
        " shorter lengths"
      )
    string_L = 12 + jnp.argsort(random_N[2:])[:max_length]
    source = below(length, random_N[0])
    nearest = jnp.maximum(source - self.reach, 0)
    farthest = jnp.minimum(source + self.reach, length - 1)
    target = nearest + below(farthest + 1 - nearest, random_N[1])
    tens, ones = jnp.divmod(jnp.abs(target - source), 10)
    sign = jnp.where(target < source, 11, 10)
    question_Q = jnp.stack([string_L[source], sign, tens, ones])
    prompt_P = jnp.append(string_L, jnp.zeros(4, jnp.int32))
    prompt_P = jax.lax.dynamic_update_slice(prompt_P, question_Q, (length,))
    return prompt_P, string_L[target][None]
