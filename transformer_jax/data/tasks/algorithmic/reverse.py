"""Reverse a string. Kazemnejad et al., 2023. https://arxiv.org/abs/2305.19466"""

import dataclasses

import jax.numpy as jnp

from transformer_jax.data.base import tasks
from transformer_jax.data.tasks.algorithmic import token_ids
from transformer_jax.data.tasks.algorithmic.base import FIRST, Strings, below, from_end


@tasks.register("reverse")
@dataclasses.dataclass(frozen=True)
class Reverse(Strings):
  """Reversal: the answer is the prompt backwards. The length counts its symbols.

  With the same key a longer prompt has more symbols on the right, so the answer keeps
  its last symbols, which `scored` selects.

  times    number of reversed copies, with a mark between (2: Kazemnejad's mc2x)
  copied   whether a forward copy follows, after a mark (their mcrv)

  >>> import transformer_jax as tj
  >>> tj.tasks.build("reverse").problem(4)
  ([12, 15, 5, 0], [0, 5, 15, 12])
  """

  symbols: int = 16
  scored: int | None = None
  times: int = 1
  copied: bool = False

  @property
  def vocabulary(self) -> int:
    """The mark between parts is the last token, if there is one."""
    return FIRST + self.symbols + (self.parts > 1)

  @property
  def parts(self) -> int:
    """Number of strings in the answer."""
    return self.times + self.copied

  @property
  def answers(self) -> int:
    return self.symbols + (self.parts > 1)

  def sizes(self, length):
    return length, self.parts * (length + 1) - 1

  def strings(self, random_N, length, max_length):
    drawn_L = below(self.symbols, random_N)
    parts = self._parts(drawn_L, length)
    return drawn_L, token_ids.joined(parts, length, self.symbols)

  def ids(self, length, max_length):
    """A symbol and its copies have the same id. Cho et al., 2024.

    https://arxiv.org/abs/2405.20671
    """
    place_L = 2 + jnp.arange(max_length)
    # A mark's index is one step before the next part: past the end if that is reversed.
    marks = [length + 2] * self.parts
    if self.copied:
      marks[self.times - 1] = 1
    answer_A = token_ids.joined(self._parts(place_L, length), length, jnp.stack(marks))
    row_L = token_ids.row(place_L, length + 2, answer_A, self.sizes(length))
    return {"coupled_BL": row_L}

  def _parts(self, forwards_L, length):
    """Returns the parts of the answer, in order."""
    return [from_end(forwards_L, length)] * self.times + [forwards_L] * self.copied
