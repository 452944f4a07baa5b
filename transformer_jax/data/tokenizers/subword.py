"""Byte pair encoding, by SentencePiece. Sennrich et al., 2016.

https://arxiv.org/abs/1508.07909; made by SentencePiece, Kudo and Richardson, 2018.
https://arxiv.org/abs/1808.06226
"""

import dataclasses
import functools
import io
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

from transformer_jax import untrusted
from transformer_jax.data.files import DataError
from transformer_jax.data.tokenizers import base
from transformer_jax.data.tokenizers.base import UNK, Tokenizer, tokenizers

MODEL = "tokenizer.model"


@tokenizers.register("subword")
@dataclasses.dataclass(frozen=True)
class Subword(Tokenizer):
  """Subword tokenizer with byte fallback for rare characters, so no text is unknown.

  size       the most tokens, special ones and the 256 bytes included; a small text has
             fewer pieces
  coverage   share of the text's characters that are tokens

  >>> from transformer_jax.data.tokenizers import tokenizers
  >>> text = "low lower lowest new newer newest"
  >>> tokenizer = tokenizers.build("subword(size=275)").train([text] * 9)
  >>> tokens = tokenizer.encode("lower")
  >>> [tokenizer.pieces[n] for n in tokens], tokenizer.decode(tokens)
  (['▁lo', 'we', 'r'], 'lower')
  """

  size: int = 8000
  coverage: float = 0.9995
  model: bytes = dataclasses.field(default=b"", kw_only=True, repr=False)

  name: ClassVar[str] = "subword"

  def __post_init__(self):
    base.need(self, len(self.special) + 257)

  @property
  def vocabulary(self) -> int:
    return self.size

  def train(self, texts: Iterable[str]) -> "Subword":
    """Returns the tokenizer with a vocabulary. Raises DataError for too little text."""
    import sentencepiece

    lines, trained_on = _lines(texts)
    out = io.BytesIO()
    if not lines:
      raise DataError("subword: there is no text to train on; give more")
    options: dict[str, Any] = _OPTIONS | {
      "control_symbols": list(self.special[UNK + 1 :])
    }
    try:
      sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=out,
        vocab_size=self.size,
        character_coverage=self.coverage,
        **options,
      )
    except RuntimeError as error:
      raise DataError(
        f"subword(size={self.size}) cannot be trained on these {len(lines)} texts"
        f" ({error}); write a larger size or a smaller coverage"
      ) from error
    return dataclasses.replace(self._of(out.getvalue()), trained_on=trained_on)

  @property
  def recipe(self) -> str:
    import sentencepiece

    return self._recipe(1, sentencepiece.__version__, _OPTIONS)

  @property
  def notes(self) -> list[str]:
    lines = self.trained_on.get("left_out")
    if not lines:
      return []
    share = self.trained_on["left_out_bytes"] / self.trained_on["bytes"]
    return [
      f"the vocabulary was not learned from {lines} of the lines ({share:.1%} of the"
      " text): they hold U+2585, which SentencePiece reserves; replace it to use them"
    ]

  def encode(self, text: str) -> list[int]:
    return self._processor.encode(text)

  def decode(self, tokens: Iterable[int]) -> str:
    # Numbers without a piece in training, within the model's size, decode to nothing.
    known = [int(token) for token in tokens if 0 <= token < len(self.pieces)]
    return self._processor.decode(known)

  def _of(self, model: bytes) -> "Subword":
    processor = _open(model)
    pieces = tuple(processor.id_to_piece(n) for n in range(processor.vocab_size()))
    return dataclasses.replace(self, pieces=pieces, model=model)

  @functools.cached_property
  def _processor(self) -> Any:
    base.trained(self)
    return _open(self.model)

  def _arguments(self) -> dict:
    return {k: v for k, v in super()._arguments().items() if k != "model"}

  def _save_more(self, folder: pathlib.Path) -> None:
    (folder / MODEL).write_bytes(self.model)

  def _load_more(self, folder: pathlib.Path) -> "Subword":
    try:
      return self._of(untrusted.content(folder / MODEL))
    except RuntimeError as error:
      raise ValueError(f"{MODEL} is damaged") from error


# SentencePiece silently skips longer lines, and lines with its space mark.
LONGEST = 4192  # bytes
RESERVED = "\u2585"


def _lines(texts: Iterable[str]) -> tuple[list[str], dict[str, Any]]:
  """Returns the lines that SentencePiece reads, and their share of the text.

  bytes     of all lines that are not empty
  cut       long lines, read in pieces
  left_out  lines with a reserved character, and their bytes
  """
  lines, count = [], {"bytes": 0, "cut": 0, "left_out": 0, "left_out_bytes": 0}
  for text in texts:
    if not text.strip():
      continue
    size = len(text) if text.isascii() else len(text.encode())
    count["bytes"] += size
    if RESERVED in text:
      count["left_out"] += 1
      count["left_out_bytes"] += size
    elif size <= LONGEST:
      lines.append(text)
    else:
      count["cut"] += 1
      lines += (piece for piece in _cut(text) if piece.strip())
  return lines, count


def _cut(text: str) -> Iterator[str]:
  """Yields pieces of at most LONGEST bytes, cut at spaces if there are any."""
  content, start = text.encode(), 0
  while len(content) - start > LONGEST:
    stop = content.rfind(b" ", start, start + LONGEST + 1)
    space = stop > start
    if not space:
      stop = start + LONGEST
      while content[stop] & 0xC0 == 0x80:  # inside a character
        stop -= 1
    yield content[start:stop].decode()
    start = stop + space  # SentencePiece puts a space before each line
  yield content[start:].decode()


_OPTIONS = {
  "model_type": "bpe",
  "byte_fallback": True,
  "hard_vocab_limit": False,
  "normalization_rule_name": "identity",
  "remove_extra_whitespaces": False,
  **{"pad_id": 0, "bos_id": 1, "eos_id": 2, "unk_id": 3},
  "num_threads": 1,
  "minloglevel": 2,
  "max_sentence_length": LONGEST,
  "required_chars": "\u2581",  # the space, which texts without spaces would lose
}


def _open(model: bytes) -> Any:
  import sentencepiece

  return sentencepiece.SentencePieceProcessor(model_proto=model)
