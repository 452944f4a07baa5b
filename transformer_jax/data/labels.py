"""What tasks with labels share: tokens, their classes, and a row for each example."""

import collections
import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.data import examples, files, parallel
from transformer_jax.data.base import Batch, Task
from transformer_jax.data.examples import Example, Form
from transformer_jax.data.files import DataError
from transformer_jax.data.tokenizers import PAD, Tokenizer, tokenizers
from transformer_jax.positions import coords
from transformer_jax.spec import nearest

FILE = "labels.json"  # with a run: what its classes are called
NONE = -1  # the class of a token that has none
MEMORY = 2**16  # parts whose tokens are remembered: words come again
learned = {}  # tokenizer and labels of each task that was loaded in this process


@dataclasses.dataclass(frozen=True)
class Labelled(Task):
  """Predicts classes of a text or of its words. The length is the most tokens of a row.

  A row is a start token, the tokens of an example and an end token, [CLS] and [SEP] of
  BERT; what is longer is cut, so that longer lengths read more of the same examples.

  source     'tfds:NAME', a file, or a folder with files called train, validation, test
  tokenizer  byte, char(size=512), word(size=16000) or subword(size=8000), trained on
             the training text; wordpiece('vocab.txt') or kept('runs/.../ID'), as they
             are, for a model that starts from weights
  classes    how many labels the model has room for
  split      what is scored: 'test' or 'validation'
  limit      the most examples kept of each split; None: all
  data_dir   where TFDS data is prepared; None: where TFDS itself looks
  """

  source: str
  tokenizer: str = "subword(size=8000)"
  classes: int = 64
  split: str = "test"
  limit: int | None = None
  data_dir: str | None = None

  kind: ClassVar[str] = "encoder"
  measures: ClassVar[tuple[str, ...]] = ("accuracy",)

  def __post_init__(self):
    tokenizers.build(self.tokenizer)
    name = _name(self)
    if self.split not in files.SPLITS[1:]:
      raise DataError(
        f"{name}: split '{self.split}' cannot be scored."
        f"{nearest(self.split, files.SPLITS[1:])} Choose validation or test."
      )
    for field, least in (("classes", 2), ("limit", 1)):
      value = getattr(self, field)
      if value is not None and value < least:
        raise DataError(f"{name}: {field} is {value}; it must be at least {least}")

  @property
  def form(self) -> Form:
    """Returns how the examples are written."""
    raise NotImplementedError

  @property
  def vocabulary(self) -> int:
    return tokenizers.build(self.tokenizer).vocabulary

  def tokens(self, length: int) -> int:
    if length < 3:
      raise DataError(
        f"{_name(self)}: a length of {length} has no room for a start, a token and"
        " an end; write train.length=3 or more"
      )
    return length

  def load(self) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the tokens of the train and the scored split, and facts.

    Each split has token_N; label_N, the class of the first token of each part; start_E
    and size_E: where in token_N an example is. frame_2: the start and the end token.
    Raises DataError, in one line, for data that cannot be used.
    """
    splits = ("train", self.split)
    found, facts = examples.read(
      self.source, self.form, splits, self.data_dir, self.limit
    )
    texts = (" ".join(example.parts) for example in found["train"])
    tokenizer = tokenizers.build(self.tokenizer).train(texts)
    labels = self._labels(found)
    learned[self] = tokenizer, labels
    facts |= {"vocabulary": tokenizer.fingerprint, "labels": len(labels)}
    facts["vocabulary_size"] = len(tokenizer.pieces)
    facts |= _guesses(found["train"], found[self.split])
    arrays = {"frame_2": np.array([tokenizer.start, tokenizer.end], np.int32)}
    for name, split in (("train", "train"), ("scored", self.split)):
      kept, arrays[name] = _arrays(found[split], tokenizer, labels)
      facts["left_out"][split] |= parallel.left_out(found[split], kept, "no token")
      facts.setdefault("examples", {})[split] = len(kept)
    facts["fit"] = _fit(arrays["train"]["size_E"] + 2)
    return arrays, facts

  def keep(self, folder: pathlib.Path) -> None:
    """Saves vocabulary and labels with a run. Raises DataError if others are there."""
    if self not in learned:
      self.load()
    tokenizer, labels = learned[self]
    tokenizer.save(folder / "tokenizer")
    path, said = folder / FILE, json.dumps(labels, ensure_ascii=False, indent=0)
    if path.exists() and path.read_text(encoding="utf-8") != said:
      raise DataError(
        f"'{path}' has other labels than '{self.source}': classes would mean something"
        " else; use the data that the run was trained with, or another folder"
      )
    path.write_text(said, encoding="utf-8")

  def batch(
    self,
    arrays: Any,
    key: jax.Array,
    rows: int,
    length: int,
    done: float | jax.Array = 1.0,
  ) -> Batch:
    """Returns examples of the training split, cut to `length` tokens."""
    E = arrays["train"]["start_E"].shape[0]
    chosen_B = jax.random.randint(key, (rows,), 0, E)
    return self._batch(arrays, "train", chosen_B, length, length)

  def score(
    self, arrays: Any, key: jax.Array, rows: int, length: jax.Array, bucket: int
  ) -> Batch:
    """Returns the same examples at every length, at the right end of `bucket`.

    Each comes once, unless there are fewer than rows.
    """
    E = arrays["scored"]["start_E"].shape[0]
    chosen_B = jax.random.permutation(key, E)[jnp.arange(rows) % E]
    return self._batch(arrays, "scored", chosen_B, length, bucket)

  def _batch(
    self, arrays: Any, split: str, chosen_B: jax.Array, length: Any, L: int
  ) -> Batch:
    data = {name: jnp.asarray(x) for name, x in arrays[split].items()}
    first_B1 = data["start_E"][chosen_B][:, None]
    size_B1 = jnp.minimum(data["size_E"][chosen_B][:, None], length - 2)
    place_BL = jnp.arange(L) - (L - 2 - size_B1)  # 0: start token, size + 1: end token
    index_BL = first_B1 + jnp.clip(place_BL - 1, 0, size_B1 - 1)
    start, end = arrays["frame_2"]
    token_BL = jnp.where(place_BL > size_B1, end, data["token_N"][index_BL])
    token_BL = jnp.where(place_BL == 0, start, token_BL)
    label_BL = self.targets(data["label_N"], first_B1, index_BL, place_BL, size_B1)
    real_BL = place_BL >= 0
    return Batch(
      jnp.where(real_BL, token_BL, PAD),
      jnp.maximum(label_BL, 0),
      (real_BL & (label_BL != NONE)).astype(jnp.float32),
      coords.packed(real_BL.astype(jnp.int32)),
    )

  def targets(
    self,
    label_N: jax.Array,
    first_B1: jax.Array,
    index_BL: jax.Array,
    place_BL: jax.Array,
    size_B1: jax.Array,
  ) -> jax.Array:
    """Returns the class to predict at each place, NONE where there is none.

    first_B1   where in label_N an example begins
    index_BL   where in label_N the token of each place is
    place_BL   0 at the start token, size + 1 at the end token, below 0 at padding
    size_B1    tokens between the two
    """
    raise NotImplementedError

  def _labels(self, found: dict[str, list[Example]]) -> list[str]:
    """Returns all labels, sorted; those never trained on count as wrong guesses."""
    every = (label for split in found.values() for x in split for label in x.labels)
    labels = sorted({*every})
    if not 2 <= len(labels) <= self.classes:
      raise DataError(
        f"'{self.source}' has {len(labels)} labels ({', '.join(labels[:5])}, ...) and"
        f" the model tells 2 to {self.classes} apart; write"
        f" {_name(self)}(classes={max(2, len(labels))}), or check the labels"
      )
    return labels


def _name(task: Task) -> str:
  return type(task).__name__.lower()


def _arrays(
  some: list[Example], tokenizer: Tokenizer, labels: list[str]
) -> tuple[list[Example], dict[str, np.ndarray]]:
  """Returns the examples that have tokens, and those laid end to end."""
  number = {label: n for n, label in enumerate(labels)}
  encode = functools.lru_cache(MEMORY)(tokenizer.encode)
  kept, tokens, classes, sizes = [], [], [], []
  for example in some:
    before = len(tokens)
    for part, label in zip(example.parts, example.labels, strict=True):
      own = encode(part)
      tokens += own
      classes += [number[label], *[NONE] * (len(own) - 1)] if own else []
    if len(tokens) > before:
      kept.append(example)
      sizes.append(len(tokens) - before)
  arrays = {"token_N": tokens, "label_N": classes, "size_E": sizes}
  arrays["start_E"] = np.cumsum([0, *sizes[:-1]])
  return kept, {name: np.array(x, np.int32) for name, x in arrays.items()}


def _guesses(train: list[Example], scored: list[Example]) -> dict[str, Any]:
  """Returns what is right without a model, and labels that are never trained on.

  accuracy   by always guessing the most common label
  lookup     by guessing the most common label of the same word or text, if it was
             trained on; both are means over examples, as evaluation reports
  """
  of_part = collections.defaultdict(collections.Counter)
  for example in train:
    for part, label in zip(example.parts, example.labels, strict=True):
      of_part[part][label] += 1
  seen = sum(of_part.values(), collections.Counter())
  usual, known = _common(seen), {part: _common(x) for part, x in of_part.items()}
  facts = {
    "label": usual,
    "accuracy": _share(scored, lambda part: usual),
    "lookup": _share(scored, lambda part: known.get(part, usual)),
  }
  unseen = sorted({x for each in scored for x in each.labels} - seen.keys())
  return {"guess": facts, "unseen": unseen}


def _common(counts: collections.Counter) -> str:
  """Returns the most common label; of equally common ones the first by spelling."""
  return min(counts, key=lambda label: (-counts[label], label))


def _share(examples: list[Example], guess: Callable[[str], str]) -> float:
  """Returns the mean over examples of the share of right guesses."""
  right = lambda x: [
    guess(part) == y for part, y in zip(x.parts, x.labels, strict=True)
  ]
  return round(float(np.mean([np.mean(right(x)) for x in examples])), 4)


def _fit(size_E: np.ndarray) -> dict[str, float]:
  """Returns the share of examples that fit whole into 16, 32, ... tokens."""
  lengths = [16 << n for n in range(8)]
  return {str(n): round(float(np.mean(size_E <= n)), 4) for n in lengths}
