"""Words of several tokens, the last of which is of an alphabet of its own."""

import dataclasses
import functools
import itertools
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.data.tasks.algorithmic.base import FIRST, PAD
from transformer_jax.spec import SpecError

MOST = 100_000  # words that one is drawn from: each text weighs all of them


@dataclasses.dataclass(frozen=True)
class TokenWords:
  """Words of some letters; a last letter is another symbol than the same one before.

  letters    number of letters; letter n is the symbol n, and letters + n at the end
  shortest   letters of a word, at least
  longest    letters of a word, at most

  >>> words = TokenWords(letters=2, shortest=1, longest=2)
  >>> words.count, (words.token_WK - FIRST).tolist()
  (6, [[2, -4], [3, -4], [0, 2], [0, 3], [1, 2], [1, 3]])
  >>> words.split([4, 6, 7])
  [(4, 6), (7,)]
  """

  letters: int
  shortest: int
  longest: int

  @property
  def symbols(self) -> int:
    return 2 * self.letters

  @property
  def count(self) -> int:
    """Number of words."""
    return sum(self.letters**n for n in self._sizes)

  @property
  def _sizes(self) -> range:
    return range(self.shortest, self.longest + 1)

  def check(self, name: str) -> None:
    """Raises SpecError, with a task's name, unless there are such words."""
    if self.longest < self.shortest:
      raise SpecError(
        f"{name}: words of at least shortest={self.shortest} and at most"
        f" longest={self.longest} letters; raise longest, or lower shortest"
      )
    # Powers of huge sizes would take long: 64 letters are too many for any alphabet.
    if self.longest > 64 or self.count > MOST:
      raise SpecError(
        f"{name}: letters={self.letters} and longest={self.longest} make more than"
        f" {MOST:,} words; lower one of them"
      )

  @functools.cached_property
  def token_WK(self) -> np.ndarray:
    """Tokens of all words, the shortest first, padded on the right."""
    rows = []
    for size in self._sizes:
      for *first, last in itertools.product(range(self.letters), repeat=size):
        word = [FIRST + x for x in (*first, self.letters + last)]
        rows.append(word + [PAD] * (self.longest - size))
    return np.array(rows, np.int32)

  def draw(self, key: jax.Array, number: int) -> jax.Array:
    """Returns the tokens of different words, [number, longest].

    Each word has a length and then letters, all equally likely; words that were drawn
    before are drawn again. The n-th does not depend on their number. Of exponential
    times at these rates the first ones are those of such draws.
    """
    rate_W = np.concatenate(
      [np.full(self.letters**n, 1.0 / self.letters**n) for n in self._sizes]
    )
    time_W = jax.random.exponential(key, (self.count,)) / rate_W.astype(np.float32)
    _, chosen_N = jax.lax.top_k(-time_W, number)
    return jnp.asarray(self.token_WK)[chosen_N]

  def split(self, tokens: Iterable[int]) -> list[tuple[int, ...]] | None:
    """Returns the words of a text of nothing else; None if it is not one."""
    words: list[tuple[int, ...]] = []
    word: tuple[int, ...] = ()
    for token in tokens:
      if not FIRST <= token < FIRST + self.symbols:
        return None
      word = (*word, token)
      if token >= FIRST + self.letters:
        words.append(word)
        word = ()
    return None if word else words
