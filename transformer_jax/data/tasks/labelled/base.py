"""Base class of labelled tasks: tokens, classes, and the layout of an example."""

import dataclasses
import json
import os
import pathlib
import sys
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax import untrusted
from transformer_jax.aside import set_aside
from transformer_jax.data import encoded, files
from transformer_jax.data.base import (
  MANY,
  Batch,
  Task,
  TaskData,
  check_fitted,
  check_sizes,
  check_split,
  note,
  shape,
)
from transformer_jax.data.files import DataError
from transformer_jax.data.readers import bitext, labelled_text
from transformer_jax.data.readers.labelled_text import Example, ExampleFormat
from transformer_jax.data.tasks.algorithmic.permutation import each_once
from transformer_jax.data.tasks.labelled import sentence_pairs
from transformer_jax.data.tasks.labelled.baselines import guesses
from transformer_jax.data.tasks.labelled.sentence_pairs import NONE, Places
from transformer_jax.data.token_cache import Tokenized
from transformer_jax.data.tokenizers import Tokenizer, tokenizers
from transformer_jax.positions import coords

FILE = "labels.json"  # in a run's folder: the names of its classes
Answer = tuple[str, float] | None  # a label and its probability, if there is one


@dataclasses.dataclass(frozen=True)
class FittedLabels:
  """Tokenizer and labels of a labelled task, fitted to its data.

  labels   names of the classes, in the order of their numbers

  >>> fitted = FittedLabels(tokenizers.build("byte").train(), ["negative", "positive"])
  >>> fitted.labels[1], fitted.tokenizer.encode("ok")
  ('positive', [116, 112])
  """

  tokenizer: Tokenizer
  labels: list[str]


@dataclasses.dataclass(frozen=True)
class Labelled(Task):
  """Classification of a text or of its words. The length is the most tokens of a row.

  A row is a start token, the tokens of an example and an end token, as [CLS] and [SEP]
  in BERT. Longer examples are truncated, so longer lengths read more of the same
  examples. A second text and an end token may follow.

  source     'tfds:NAME', a file, or a folder with files called train, validation, test
  tokenizer  byte, char(size=512), word(size=16000) or subword(size=8000), trained on
             the training text; huggingface('FOLDER/tokenizer.json'),
             wordpiece('vocab.txt') or kept('runs/.../ID'), unchanged, for a model
             that starts from weights
  classes    number of outputs of the model's classifier: the most labels
  split      the scored split: 'test' or 'validation'; or a split of TFDS data with
             another name
  limit      the most examples of each split; None: all
  data_dir   folder of prepared TFDS data; None: TFDS's default

  >>> from transformer_jax.data.base import tasks
  >>> task = tasks.build("tagging('train.tsv', classes=12)")
  >>> task.kind, task.classes, task.whole, task.pairs
  ('encoder', 12, False, False)
  """

  source: str
  tokenizer: str = "subword(size=8000)"
  classes: int = 64
  split: str = "test"
  limit: int | None = None
  data_dir: str | None = None

  measures: ClassVar[tuple[str, ...]] = ("accuracy",)

  def __post_init__(self):
    tokenizers.build(self.tokenizer)
    name = _name(self)
    of_its_own = self.split not in files.SPLITS  # TFDS defines its splits
    if not (of_its_own and self.source.startswith(bitext.TFDS)):
      check_split(name, self.split)
    check_sizes(name, 2, classes=self.classes)
    check_sizes(name, limit=self.limit)

  @property
  def kind(self) -> str:
    return "encoder"

  @property
  def format(self) -> ExampleFormat:
    """The file format of the examples."""
    raise NotImplementedError

  @property
  def pairs(self) -> bool:
    """Whether a row holds two texts: tokens of the second have type_BL 1, others 0."""
    return False

  @property
  def vocabulary(self) -> int:
    return tokenizers.build(self.tokenizer).vocabulary

  def tokens(self, length: int) -> int:
    least = 5 if self.pairs else 3
    if length < least:
      raise DataError(
        f"{_name(self)}: a length of {length} has no room for a start, and a token and"
        f" an end of each text; write train.length={least} or more"
      )
    return length

  def load(self) -> TaskData:
    """Returns the tokens of the train and the scored split, facts, and FittedLabels.

    Each split has the arrays of `sentence_pairs.laid_end_to_end`. frame_2 holds the
    start and the end token. Raises DataError, in one line, for unusable data.
    """
    splits = ("train", self.split)
    found, facts = labelled_text.read(
      self.source, self.format, splits, self.data_dir, self.limit
    )
    tokens = self._encoded(found)
    tokenizer = tokens.tokenizer
    labels = self._labels(found)
    facts |= {**tokenizer.facts, "labels": len(labels)}
    note(facts, *tokenizer.notes)
    facts |= guesses(found["train"], found[self.split])
    frame_2 = np.array([tokenizer.start, tokenizer.end], np.int32)
    by_split: dict[str, dict[str, np.ndarray]] = {}
    for name, split in (("train", "train"), ("scored", self.split)):
      each = encoded.pieces(tokens, split)
      kept, by_split[name] = sentence_pairs.laid_end_to_end(found[split], each, labels)
      facts["left_out"][split] |= bitext.left_out(found[split], kept, "no token")
      facts.setdefault("examples", {})[split] = len(kept)
    facts["fit"] = _fit(by_split["train"]["size_E"] + 2 + self.pairs)
    arrays = {"frame_2": frame_2, **by_split}
    return TaskData(arrays, facts, FittedLabels(tokenizer, labels))

  def abstract(self) -> dict[str, Any]:
    names = "token_N", "label_N", "size_E", "before_E", "start_E"
    split = {name: shape(MANY) for name in names}
    return {"frame_2": shape(2), "train": split, "scored": split}

  def keep(self, folder: pathlib.Path, fitted: FittedLabels) -> None:
    """Saves vocabulary and labels with a run. Raises DataError if others are there."""
    check_fitted(self, fitted, FittedLabels)
    fitted.tokenizer.save(folder / "tokenizer")
    path, labels_json = (
      folder / FILE,
      json.dumps(fitted.labels, ensure_ascii=False, indent=0),
    )
    if os.path.lexists(path) and not _is_whole(path):
      print(f"'{path}' is damaged; kept as {set_aside(path)}", file=sys.stderr)
    if path.exists() and path.read_text(encoding="utf-8") != labels_json:
      raise DataError(
        f"'{path}' has other labels than '{self.source}': classes would mean something"
        " else; use the data that the run was trained with, or another folder"
      )
    path.write_text(labels_json, encoding="utf-8")

  def available(self, arrays: Any) -> int:
    """Returns the number of examples of the scored split."""
    return len(arrays["scored"]["start_E"])

  def batch(
    self,
    arrays: Any,
    key: jax.Array,
    batch_size: int,
    length: int,
    progress: float | jax.Array = 1.0,
  ) -> Batch:
    """Returns examples of the training split, truncated to `length` tokens.

    arrays       `TaskData.arrays` of `load`
    key          chooses the examples, with replacement
    batch_size   rows
    length       tokens of a row, L
    progress     unused: share of training that is done
    """
    E = arrays["train"]["start_E"].shape[0]
    chosen_B = jax.random.randint(key, (batch_size,), 0, E)
    return self.rows(arrays, "train", chosen_B, length, length)

  def score(
    self, arrays: Any, key: jax.Array, batch_size: int, length: jax.Array, bucket: int
  ) -> Batch:
    """Returns the same examples at every length, aligned right in `bucket` tokens.

    arrays       `TaskData.arrays` of `load`
    key          chooses the examples, without replacement
    batch_size   rows; fewer where the split has fewer examples
    length       int32 scalar, the most tokens of an example
    bucket       tokens of a row, L
    """
    chosen_B = each_once(key, arrays["scored"]["start_E"].shape[0], batch_size)
    return self.rows(arrays, "scored", chosen_B, length, bucket)

  def rows(
    self, arrays: Any, split: str, chosen_B: jax.Array, length: Any, L: int
  ) -> Batch:
    """Returns examples truncated to `length` tokens, aligned right in rows of L.

    arrays     `TaskData.arrays` of `load`
    split      "train" or "scored"
    chosen_B   int32, numbers of the examples
    length     the most tokens of an example; may be traced
    L          tokens of a row
    """
    data = {name: jnp.asarray(x) for name, x in arrays[split].items()}
    places = sentence_pairs.places(data, chosen_B, length, L, self.pairs)
    label_BL = self.targets(data["label_N"], places)
    at = coords.packed(places.real_BL.astype(jnp.int32))
    if self.pairs:
      at = at.replace(data={"type_BL": places.second_BL.astype(jnp.int32)})
    return Batch(
      places.tokens(data["token_N"], arrays["frame_2"]),
      jnp.maximum(label_BL, 0),
      (places.real_BL & (label_BL != NONE)).astype(jnp.float32),
      at,
    )

  def targets(self, label_N: jax.Array, places: Places) -> jax.Array:
    """Returns the target class of each token [B, L], NONE where there is none."""
    raise NotImplementedError

  def asked(self, line: str, where: str) -> Example:
    """Returns the unlabelled example of a line of text. Raises DataError."""
    raise NotImplementedError

  def answered(self, example: Example, found: list[Answer]) -> str:
    """Returns a line with the predicted labels of an example's parts."""
    raise NotImplementedError

  def _encoded(self, found: dict[str, list[Example]]) -> Tokenized:
    """Returns the tokens of all parts, by a tokenizer trained on whole examples."""

    def learn() -> Tokenizer:
      texts = (" ".join(x.texts) for x in found["train"])
      return tokenizers.build(self.tokenizer).train(texts)

    texts = {
      split: [text for x in some for text in x.texts] for split, some in found.items()
    }
    counts = encoded.digest([str(len(x.texts)) for x in found["train"]])
    return encoded.encoded(self.tokenizer, texts, learn, ["examples", counts])

  def _labels(self, found: dict[str, list[Example]]) -> list[str]:
    """Returns all labels, sorted; labels without training examples count as errors."""
    every = (label for split in found.values() for x in split for label in x.labels)
    labels = sorted({*every})
    if not 2 <= len(labels) <= self.classes:
      raise DataError(
        f"'{self.source}' has {len(labels)} labels ({', '.join(labels[:5])}, ...) and"
        f" the model tells 2 to {self.classes} apart; write"
        f" {_name(self)}(classes={max(2, len(labels))}), or check the labels"
      )
    return labels


def kept(folder: pathlib.Path) -> list[str]:
  """Returns the labels that `keep` saved in a run's folder. Raises DataError."""
  try:
    return untrusted.parsed(untrusted.content(folder / FILE))
  except OSError as error:
    raise DataError(
      f"cannot read the labels '{folder / FILE}': {error.strerror}; train that run"
    ) from error
  except ValueError as error:
    raise DataError(
      f"'{folder / FILE}' holds no labels ({error}); copy it again"
    ) from error


def _is_whole(path: pathlib.Path) -> bool:
  """Returns whether a file holds a JSON list of strings, so is not damaged."""
  try:
    found = json.loads(path.read_text(encoding="utf-8"))
  except (ValueError, IsADirectoryError):
    return False
  return isinstance(found, list) and all(isinstance(name, str) for name in found)


def _name(task: Task) -> str:
  return type(task).__name__.lower()


def _fit(size_E: np.ndarray) -> dict[str, float]:
  """Returns the share of examples that fit whole into 16, 32, ... tokens."""
  lengths = [16 << n for n in range(8)]
  return {str(n): round(float(np.mean(size_E <= n)), 4) for n in lengths}
