"""Tokenizer of a finished run, for fine-tuning from its parameters."""

import dataclasses
import functools
import pathlib
from collections.abc import Iterable
from typing import ClassVar

from transformer_jax.data.files import DataError
from transformer_jax.data.tokenizers.base import Tokenizer, load, tokenizers


@tokenizers.register("kept")
@dataclasses.dataclass(frozen=True)
class Kept(Tokenizer):
  """Tokenizer of another run.

  folder   of that run

  >>> from transformer_jax.data.tokenizers import tokenizers
  >>> import tempfile
  >>> with tempfile.TemporaryDirectory() as run:
  ...   trained = tokenizers.build("char(size=8)").train(["banana"])
  ...   trained.save(pathlib.Path(run, "tokenizer"))
  ...   tokenizers.build(f"kept({run!r})").train() == trained
  True
  """

  folder: str = ""

  name: ClassVar[str] = "kept"

  @property
  def vocabulary(self) -> int:
    return self._there.vocabulary

  @property
  def special(self) -> tuple[str, ...]:
    return self._there.special

  @property
  def start(self) -> int:
    return self._there.start

  @property
  def end(self) -> int:
    return self._there.end

  @property
  def mask(self) -> int:
    return self._there.mask

  @property
  def recipe(self) -> str | None:
    there = self._there
    return there.recipe and self._recipe(there.recipe, there.fingerprint)

  def train(self, texts: Iterable[str] = ()) -> Tokenizer:
    """Returns the run's tokenizer; texts are ignored."""
    return self._there

  @functools.cached_property
  def _there(self) -> Tokenizer:
    if not self.folder:
      raise DataError("kept: name the folder of a run, as in kept('runs/text/runs/ID')")
    return load(pathlib.Path(self.folder).expanduser() / "tokenizer")
