"""Tokenizer of words and punctuation marks, the most common ones."""

import dataclasses
import re
from typing import ClassVar

from transformer_jax.data.tokenizers.base import tokenizers
from transformer_jax.data.tokenizers.char import Listed

SPACE = "\u2581"  # of a space inside a piece, as in SentencePiece
PIECE = re.compile(rf"{SPACE}?(?:\w+|[^\w\s{SPACE}])|{SPACE}")


@tokenizers.register("word")
@dataclasses.dataclass(frozen=True)
class Word(Listed):
  """Word tokenizer: the most common words and punctuation marks.

  A piece includes the space before it, so decoding restores the text; several spaces in
  a row become one.

  size   the most tokens, special ones included

  >>> from transformer_jax.data.tokenizers import tokenizers
  >>> tokenizer = tokenizers.build("word(size=9)").train(["to be or not to be"])
  >>> tokenizer.encode("to be here"), tokenizer.decode([6, 5])
  ([6, 5, 3], 'to be')
  """

  size: int = 16_000

  name: ClassVar[str] = "word"

  def cut(self, text):
    return PIECE.findall("".join(SPACE + word for word in text.split()))

  def join(self, pieces):
    # An unknown token mostly stands for a separate word.
    known = (SPACE + piece if piece == "<unk>" else piece for piece in pieces)
    return "".join(known).replace(SPACE, " ").strip()
