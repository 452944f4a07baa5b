"""Copy a string. Kazemnejad et al., 2023. https://arxiv.org/abs/2305.19466"""

import dataclasses

import jax.numpy as jnp

from transformer_jax.data.base import tasks
from transformer_jax.data.tasks.algorithmic import token_ids
from transformer_jax.data.tasks.algorithmic.base import FIRST, Strings, below, from_end


@tasks.register("copy")
@dataclasses.dataclass(frozen=True)
class Copy(Strings):
  """Copying: the answer is the prompt. The length counts its symbols.

  With the same key a longer string has more symbols on the left and the same last ones,
  which `scored` selects.

  times   number of copies, with a mark between (2: Kazemnejad's cmc2x)

  >>> import transformer_jax as tj
  >>> tj.tasks.build("copy").problem(4)
  ([0, 5, 15, 12], [0, 5, 15, 12])
  >>> tj.tasks.build("copy(times=2)").problem(4)
  ([0, 5, 15, 12], [0, 5, 15, 12, 16, 0, 5, 15, 12])
  """

  symbols: int = 16
  scored: int | None = None
  times: int = 1

  @property
  def vocabulary(self) -> int:
    """The mark between copies is the last token, if there is one."""
    return FIRST + self.symbols + (self.times > 1)

  @property
  def answers(self) -> int:
    return self.symbols + (self.times > 1)

  def sizes(self, length):
    return length, self.times * (length + 1) - 1

  def strings(self, random_N, length, max_length):
    string_L = from_end(below(self.symbols, random_N), length)
    return string_L, token_ids.joined([string_L] * self.times, length, self.symbols)

  def ids(self, length, max_length):
    """A symbol and its copies have the same id. Cho et al., 2024.

    https://arxiv.org/abs/2405.20671
    """
    place_L = 2 + jnp.arange(max_length)
    answer_A = token_ids.joined([place_L] * self.times, length, 1)
    return {"coupled_BL": token_ids.row(place_L, 1, answer_A, self.sizes(length))}
