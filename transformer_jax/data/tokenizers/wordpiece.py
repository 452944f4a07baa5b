"""WordPiece from a vocabulary file. Wu et al., 2016; Devlin et al., 2019.

https://arxiv.org/abs/1609.08144; https://arxiv.org/abs/1810.04805
"""

import dataclasses
import functools
import pathlib
import unicodedata
from collections.abc import Iterable, Iterator
from typing import ClassVar

from transformer_jax.data import files
from transformer_jax.data.files import DataError
from transformer_jax.data.tokenizers.base import Tokenizer, tokenizers

LONGEST = 100  # a word of more characters is unknown
IDEOGRAPHS = (  # each Chinese character is a separate word
  *((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x2A6DF)),
  *((0x2A700, 0x2B73F), (0x2B740, 0x2B81F), (0x2B820, 0x2CEAF), (0x2F800, 0x2FA1F)),
)


@tokenizers.register("wordpiece")
@dataclasses.dataclass(frozen=True)
class WordPiece(Tokenizer):
  r"""WordPiece tokenizer: greedy longest match from a word's start; no training.

  file    vocab.txt, one piece on each line; ## marks pieces inside a word
  lower   in small letters without accents, as in uncased models

  Its special tokens are [PAD], [CLS], [SEP], [UNK] and [MASK], where the file has them.

  >>> from transformer_jax.data.tokenizers import tokenizers
  >>> import os, tempfile
  >>> pieces = "[PAD] [UNK] [CLS] [SEP] [MASK] play ##ing ##ed".split()
  >>> with tempfile.TemporaryDirectory() as folder:
  ...   file = os.path.join(folder, "vocab.txt")
  ...   _ = pathlib.Path(file).write_text("\n".join(pieces))
  ...   tokenizer = tokenizers.build(f"wordpiece({file!r})").train([])
  >>> [tokenizer.pieces[n] for n in tokenizer.encode("Playing")]
  ['play', '##ing']
  """

  file: str = ""
  lower: bool = True

  name: ClassVar[str] = "wordpiece"

  @property
  def vocabulary(self) -> int:
    return len(self._listed)

  @property
  def special(self) -> tuple[str, ...]:
    """Special tokens at the start of the vocabulary: none."""
    return ()

  @property
  def start(self) -> int:
    return self._number("[CLS]")

  @property
  def end(self) -> int:
    return self._number("[SEP]")

  @property
  def mask(self) -> int:
    return self._number("[MASK]")

  @property
  def recipe(self) -> str:
    return self._recipe(1, self._listed)

  def train(self, texts: Iterable[str] = ()) -> "WordPiece":
    """Returns the vocabulary of the file; texts are ignored."""
    return dataclasses.replace(self, pieces=self._listed)

  def encode(self, text: str) -> list[int]:
    return [token for word in self.words(text) for token in self._cut(word)]

  def decode(self, tokens: Iterable[int]) -> str:
    pieces = self._listed
    shown = (pieces[n] for n in tokens if 0 <= n < len(pieces))
    words = (x for x in shown if x == "[UNK]" or not (x[0] == "[" and x[-1] == "]"))
    return " ".join(words).replace(" ##", "")

  def words(self, text: str) -> list[str]:
    """Returns words, and punctuation marks one by one."""
    text = "".join(_cleaned(text))
    if self.lower:
      text = unicodedata.normalize("NFD", text.lower())
      text = "".join(x for x in text if unicodedata.category(x) != "Mn")
    return "".join(f" {x} " if _punctuation(x) else x for x in text).split()

  def _cut(self, word: str) -> list[int]:
    """Returns the tokens of one word, or the unknown one."""
    numbers, tokens, start = self._numbers, [], 0
    while start < len(word):
      before = "##" if start else ""
      ends = range(min(len(word), start + LONGEST), start, -1)
      end = next((n for n in ends if before + word[start:n] in numbers), None)
      if end is None or len(word) > LONGEST:
        return [self._number("[UNK]")]
      tokens.append(numbers[before + word[start:end]])
      start = end
    return tokens

  def _number(self, piece: str) -> int:
    if piece not in self._numbers:
      raise DataError(f"'{self.file}' has no {piece}; name the vocab.txt of a BERT")
    return self._numbers[piece]

  @functools.cached_property
  def _listed(self) -> tuple[str, ...]:
    return self.pieces or _read(self.file)

  @functools.cached_property
  def _numbers(self) -> dict[str, int]:
    return {piece: n for n, piece in enumerate(self._listed)}


@functools.lru_cache(maxsize=4)
def _read(file: str) -> tuple[str, ...]:
  if not file:
    raise DataError("wordpiece: name a vocabulary, as in wordpiece('bert/vocab.txt')")
  pieces = tuple(files.lines(pathlib.Path(file).expanduser()))
  twice = len(pieces) - len({*pieces})
  if twice or "" in pieces:
    raise DataError(
      f"'{file}' is no vocabulary: {twice} lines repeat others or one is empty; it"
      " needs one piece on each line"
    )
  return pieces


def _cleaned(text: str) -> Iterator[str]:
  """Yields characters without controls; spaces surround ideographs."""
  for x in text:
    if x in "\t\n\r" or unicodedata.category(x) == "Zs":
      yield " "
    elif x not in "\0\ufffd" and unicodedata.category(x)[0] != "C":
      inside = any(first <= ord(x) <= last for first, last in IDEOGRAPHS)
      yield f" {x} " if inside else x


def _punctuation(x: str) -> bool:
  """Returns whether a character is split off, as ASCII but letters and digits."""
  return unicodedata.category(x)[0] == "P" or (
    x.isascii() and not x.isalnum() and not x.isspace()
  )
