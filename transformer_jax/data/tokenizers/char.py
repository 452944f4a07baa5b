"""Tokenizer of characters, the most common ones."""

import dataclasses
import functools
from collections import Counter
from collections.abc import Iterable
from typing import ClassVar

from transformer_jax.data.tokenizers import base
from transformer_jax.data.tokenizers.base import UNK, Tokenizer, tokenizers


@dataclasses.dataclass(frozen=True)
class Listed(Tokenizer):
  """A vocabulary of the most common pieces of text; others are unknown.

  size   the most tokens, special ones included

  >>> from transformer_jax.data.tokenizers import tokenizers
  >>> tokenizer = tokenizers.build("word(size=7)").train(["to be or not to be"])
  >>> tokenizer.vocabulary, tokenizer.pieces[5:]
  (7, ('▁be', '▁to'))
  """

  size: int = 512

  def __post_init__(self):
    base.need(self, len(self.special) + 1)

  @property
  def vocabulary(self) -> int:
    return self.size

  @property
  def recipe(self) -> str:
    return self._recipe(1)

  def cut(self, text: str) -> list[str]:
    """Cuts a text into pieces."""
    raise NotImplementedError

  def join(self, pieces: list[str]) -> str:
    """Joins pieces to a text."""
    raise NotImplementedError

  def train(self, texts: Iterable[str]) -> "Listed":
    counts: Counter[str] = Counter()
    for text in texts:
      counts.update(self.cut(text))
    common = base.most_common(counts, self.size - len(self.special))
    return dataclasses.replace(self, pieces=(*self.special, *common))

  @functools.cached_property
  def _tokens(self) -> dict[str, int]:
    # No cut of a text is spelled like a special token.
    return {piece: n for n, piece in enumerate(base.trained(self))}

  def encode(self, text: str) -> list[int]:
    tokens = self._tokens
    return [tokens.get(piece, UNK) for piece in self.cut(text)]

  def decode(self, tokens: Iterable[int]) -> str:
    first, pieces = len(self.special), base.trained(self)
    shown = [n for n in tokens if n == UNK or first <= n < len(pieces)]
    return self.join([pieces[n] for n in shown])


@tokenizers.register("char")
@dataclasses.dataclass(frozen=True)
class Char(Listed):
  """One token for each of the most common characters.

  size   the most tokens, special ones included

  >>> from transformer_jax.data.tokenizers import tokenizers
  >>> tokenizer = tokenizers.build("char(size=8)").train(["banana"])
  >>> tokenizer.pieces[5:]
  ('a', 'n', 'b')
  >>> tokenizer.encode("banal"), tokenizer.decode([7, 5, 6])
  ([7, 5, 6, 5, 3], 'ban')
  """

  name: ClassVar[str] = "char"

  def cut(self, text):
    return list(text)

  def join(self, pieces):
    return "".join(pieces)
