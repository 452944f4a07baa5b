"""Base class of tokenizers: special tokens, vocabulary, fingerprint, saving."""

import dataclasses
import hashlib
import json
import os
import pathlib
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from transformer_jax import untrusted
from transformer_jax.aside import set_aside
from transformer_jax.data.files import DataError
from transformer_jax.spec import Registry

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<mask>")
PAD, BOS, EOS, UNK, MASK = range(len(SPECIAL))
FILE = "tokenizer.json"


@dataclasses.dataclass(frozen=True)
class Tokenizer:
  """Base class of tokenizers; `train` learns the vocabulary.

  Every vocabulary starts with the special tokens, which no text can spell, and then the
  sentinels: <extra_0>, <extra_1>, ..., which stand for removed spans.

  sentinels   number of sentinels
  pieces      text of each token, in order; empty before training
  trained_on  amount of text used in training, where it may be less than all

  >>> from transformer_jax.data.tokenizers import tokenizers
  >>> tokenizer = tokenizers.build("char(size=16)").train(["hello world"])
  >>> tokens = tokenizer.encode("hello")
  >>> len(tokens), tokenizer.decode(tokens)
  (5, 'hello')
  """

  sentinels: int = dataclasses.field(default=0, kw_only=True)
  pieces: tuple[str, ...] = dataclasses.field(default=(), kw_only=True, repr=False)
  trained_on: dict[str, Any] = dataclasses.field(
    default_factory=dict, kw_only=True, repr=False, compare=False
  )

  name: ClassVar[str]

  @property
  def start(self) -> int:
    """Token that begins a text."""
    return BOS

  @property
  def end(self) -> int:
    """Token that ends a text."""
    return EOS

  @property
  def mask(self) -> int:
    """Mask token."""
    return MASK

  @property
  def vocabulary(self) -> int:
    """The largest number of tokens after training: the size of a model's table."""
    raise NotImplementedError

  @property
  def special(self) -> tuple[str, ...]:
    """The special tokens and the sentinels."""
    return *SPECIAL, *(f"<extra_{n}>" for n in range(self.sentinels))

  @property
  def fingerprint(self) -> str:
    """The SHA-256 of the vocabulary."""
    record = json.dumps([self.name, self.pieces], ensure_ascii=True)
    return hashlib.sha256(record.encode()).hexdigest()

  @property
  def facts(self) -> dict[str, Any]:
    """Fingerprint, size and training text of the vocabulary, to record."""
    facts = {"vocabulary": self.fingerprint, "vocabulary_size": len(self.pieces)}
    return facts | ({"vocabulary_text": self.trained_on} if self.trained_on else {})

  @property
  def recipe(self) -> str | None:
    """All inputs of tokenization but the texts; None: tokens are not cached on disk.

    The recipe has a version, to be raised with each change of a tokenizer's results.
    """
    return None

  @property
  def notes(self) -> list[str]:
    """Notes to the user on the training text."""
    return []

  def train(self, texts: Iterable[str]) -> "Tokenizer":
    """Returns this tokenizer with a vocabulary, deterministic in the texts."""
    raise NotImplementedError

  def encode(self, text: str) -> list[int]:
    """Returns the tokens of a text; no special ones but the unknown token."""
    raise NotImplementedError

  def decode(self, tokens: Iterable[int]) -> str:
    """Returns the text, without special tokens but the unknown one."""
    raise NotImplementedError

  def sentinel(self, n: int) -> int:
    """Returns the token <extra_n>. Raises DataError when there are too few."""
    if f"<extra_{n}>" not in self.special:  # a vocabulary from a file has none
      raise DataError(
        f"{self.name} has {max(len(self.special) - len(SPECIAL), 0)} sentinels, and"
        f" <extra_{n}> is asked for; write"
        f" {self.name if self.special else 'subword'}(sentinels={n + 1})"
      )
    return len(SPECIAL) + n

  def save(self, folder: pathlib.Path) -> None:
    """Writes the vocabulary and its arguments. Raises DataError if another is there.

    A damaged file is set aside: the vocabulary can be trained again.
    """
    if (there := _intact(folder)) is not None:
      self.check(there, str(folder))
      return
    folder.mkdir(parents=True, exist_ok=True)
    record = {
      "tokenizer": self.name,
      "fingerprint": self.fingerprint,
      "arguments": self._arguments(),
      "pieces": self.pieces,
    }
    self._save_more(folder)
    # A temporary name first: a killed process leaves no partial vocabulary.
    new = folder / f"{FILE}.new"
    new.write_text(json.dumps(record, ensure_ascii=False, indent=0), encoding="utf-8")
    new.replace(folder / FILE)

  def check(self, other: "Tokenizer", where: str) -> None:
    """Raises DataError unless the other tokenizer has the same vocabulary."""
    if self.fingerprint != other.fingerprint:
      raise DataError(
        f"the vocabulary in {where} is {_brief(other)} and this one is {_brief(self)}:"
        " tokens would mean other words; use the texts and the tokenizer that it was"
        " trained with, or another folder"
      )

  def _arguments(self) -> dict:
    kept = [field.name for field in dataclasses.fields(self) if field.init]
    learned = {"pieces", "trained_on"}
    return {name: getattr(self, name) for name in kept if name not in learned}

  def _recipe(self, *versions: object) -> str:
    return json.dumps([self.name, self._arguments(), *versions])

  def _save_more(self, folder: pathlib.Path) -> None:
    pass

  def _load_more(self, folder: pathlib.Path) -> "Tokenizer":
    return self


tokenizers = Registry("tokenizer", Tokenizer)


def load(folder: pathlib.Path) -> Tokenizer:
  """Returns a saved tokenizer. Raises DataError if it is missing or damaged."""
  path = folder / FILE
  try:
    record = untrusted.parsed(untrusted.content(path))
    empty = tokenizers[record["tokenizer"]](**record["arguments"])
    found = dataclasses.replace(empty, pieces=tuple(record["pieces"]))._load_more(
      folder
    )
  except OSError as error:
    raise DataError(
      f"cannot read the vocabulary '{error.filename or path}': {error.strerror}; train"
      " it again in another folder"
    ) from error
  except (ValueError, LookupError, TypeError, AttributeError) as error:
    raise DataError(f"'{path}' is no vocabulary ({error}); copy it again") from error
  if found.fingerprint != record["fingerprint"]:
    raise DataError(f"'{path}' was changed since it was written; copy it again")
  return found


def _intact(folder: pathlib.Path) -> Tokenizer | None:
  """Returns the intact tokenizer of a folder, or None."""
  if not os.path.lexists(folder) or folder.is_dir() and not any(folder.iterdir()):
    return None
  try:
    return load(folder)
  except DataError as error:
    if isinstance(error.__cause__, PermissionError):
      raise
    free = set_aside(folder)
    print(f"{error}; kept as {free}, written anew", file=sys.stderr)
    return None


def most_common(counts: Counter, room: int) -> list[str]:
  """Returns the `room` most common pieces, equally common ones by their spelling."""
  return [piece for piece, _ in sorted(counts.items(), key=lambda x: (-x[1], x[0]))][
    :room
  ]


def need(tokenizer: Tokenizer, least: int) -> None:
  """Raises DataError unless there is room for `least` tokens."""
  if tokenizer.vocabulary < least:
    raise DataError(
      f"{tokenizer.name}: a size of {tokenizer.vocabulary} leaves no room beside the"
      f" special tokens; write {tokenizer.name}(size={least}) or more"
    )


def trained(tokenizer: Tokenizer) -> Sequence[str]:
  """Returns the pieces. Raises DataError before training."""
  if not tokenizer.pieces:
    raise DataError(
      f"{tokenizer.name} has no vocabulary yet; call train(texts) or load(folder)"
    )
  return tokenizer.pieces


def _brief(tokenizer: Tokenizer) -> str:
  size, print_ = len(tokenizer.pieces), tokenizer.fingerprint[:12]
  return f"{tokenizer.name} of {size} tokens, fingerprint {print_}"
