"""Copy all but the blanks. Golovneva et al., 2024. https://arxiv.org/abs/2405.18719"""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from transformer_jax.data.base import tasks
from transformer_jax.data.tasks.algorithmic.base import FIRST, Strings, below
from transformer_jax.data.tasks.algorithmic.permutation import shuffled


@tasks.register("selective_copy")
@dataclasses.dataclass(frozen=True)
class SelectiveCopy(Strings):
  """Selective copying: the prompt without its blanks. The length counts the blanks.

  Blanks are anywhere. The paper has 128 other symbols and trains on 128 blanks, which
  is selective_copy(kept=128, fixed=True), and tests on 64 and 256 too.

  kept   number of symbols that are not blank

  >>> import transformer_jax as tj
  >>> tj.tasks.build("selective_copy(symbols=8, kept=3)").problem(4)
  ([8, 4, 8, 7, 8, 5, 8], [4, 7, 5])
  """

  symbols: int = 16
  kept: int = 16
  stops: ClassVar[bool] = False

  @property
  def vocabulary(self) -> int:
    """The blank is the last token."""
    return FIRST + self.symbols + 1

  @property
  def answers(self) -> int:
    return self.symbols

  def sizes(self, length):
    return self.kept + length, self.kept

  def numbers(self, max_length):
    return 2 * self.kept + max_length

  def strings(self, random_N, length, max_length):
    string_A = below(self.symbols, random_N[: self.kept])
    place_P = shuffled(random_N[self.kept :], self.kept + length)
    place_A = jnp.sort(place_P[: self.kept])
    blank_P = jnp.full(self.kept + max_length, self.symbols)
    return blank_P.at[place_A].set(string_A), string_A
