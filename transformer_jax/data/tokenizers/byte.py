"""Tokenizer of UTF-8 bytes. Xue et al., 2022. https://arxiv.org/abs/2105.13626"""

import dataclasses
from collections.abc import Iterable
from typing import ClassVar

from transformer_jax.data.tokenizers.base import Tokenizer, tokenizers, trained


@tokenizers.register("byte")
@dataclasses.dataclass(frozen=True)
class Byte(Tokenizer):
  """One token for each of the 256 bytes; no text is unknown.

  >>> from transformer_jax.data.tokenizers import tokenizers
  >>> tokenizer = tokenizers.build("byte").train()
  >>> tokenizer.encode("Hé"), tokenizer.decode([77, 200, 174])
  ([77, 200, 174], 'Hé')
  """

  name: ClassVar[str] = "byte"

  @property
  def vocabulary(self) -> int:
    return len(self.special) + 256

  @property
  def recipe(self) -> str:
    return self._recipe(1)

  def train(self, texts: Iterable[str] = ()) -> "Byte":
    """Returns the fixed vocabulary; texts are ignored."""
    pieces = *self.special, *(f"<0x{value:02X}>" for value in range(256))
    return dataclasses.replace(self, pieces=pieces)

  def encode(self, text: str) -> list[int]:
    trained(self)
    first = len(self.special)
    return [first + value for value in text.encode()]

  def decode(self, tokens: Iterable[int]) -> str:
    """Returns the text; bytes that form no character are shown as U+FFFD."""
    first = len(self.special)
    values = bytes(token - first for token in tokens if 0 <= token - first < 256)
    return values.decode("utf-8", "replace")
