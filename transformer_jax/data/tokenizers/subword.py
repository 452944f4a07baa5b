"""Subwords, by byte pair encoding. Sennrich et al., 2016.

https://arxiv.org/abs/1508.07909; made by SentencePiece, Kudo and Richardson, 2018.
https://arxiv.org/abs/1808.06226
"""

import dataclasses
import functools
import io
import pathlib
from collections.abc import Iterable
from typing import Any, ClassVar

from transformer_jax.data.files import DataError
from transformer_jax.data.tokenizers import base
from transformer_jax.data.tokenizers.base import UNK, Tokenizer, tokenizers

MODEL = "tokenizer.model"


@tokenizers.register("subword")
@dataclasses.dataclass(frozen=True)
class Subword(Tokenizer):
  """Pieces of words; rare characters are written as bytes, so no text is unknown.

  size       the most tokens, special ones and the 256 bytes included; a small text has
             fewer pieces
  coverage   share of the text's characters that are tokens of their own
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

    lines, out = [text for text in texts if text.strip()], io.BytesIO()
    if not lines:
      raise DataError("subword: there is no text to train on; give more")
    options = _OPTIONS | {"control_symbols": list(self.special[UNK + 1 :])}
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
    return self._of(out.getvalue())

  def encode(self, text: str) -> list[int]:
    return self._processor.encode(text)

  def decode(self, tokens: Iterable[int]) -> str:
    # What was never seen in training, but has room in a model, is no piece.
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
      return self._of((folder / MODEL).read_bytes())
    except RuntimeError as error:
      raise ValueError(f"{MODEL} is damaged") from error


_OPTIONS = {
  "model_type": "bpe",
  "byte_fallback": True,
  "hard_vocab_limit": False,
  "normalization_rule_name": "identity",
  "remove_extra_whitespaces": False,
  **{"pad_id": 0, "bos_id": 1, "eos_id": 2, "unk_id": 3},
  "num_threads": 1,
  "minloglevel": 2,
}


def _open(model: bytes) -> Any:
  import sentencepiece

  return sentencepiece.SentencePieceProcessor(model_proto=model)
