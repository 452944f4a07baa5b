"""Byte-level language modelling of real text."""

import dataclasses
import platform
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.data import corpora, files, overlap, stores, windows
from transformer_jax.data.base import (
  MANY,
  Batch,
  Task,
  TaskData,
  check_sizes,
  check_split,
  note,
  shape,
  tasks,
)
from transformer_jax.data.corpora import Corpus
from transformer_jax.data.files import DataError, Document
from transformer_jax.data.readers import tfds
from transformer_jax.data.tasks.algorithmic.permutation import each_once
from transformer_jax.data.windows import HostText, Starts
from transformer_jax.positions import coords
from transformer_jax.spec import nearest

TFDS = "tfds:"
ORDERS = "random", "epochs"
MOST = np.iinfo(np.int32).max


@tasks.register("text")
@dataclasses.dataclass(frozen=True)
class Text(Task):
  """Language modelling of bytes. The length counts the input bytes.

  source    'stdlib' (the source of this Python's library), a file, folder or glob of
            UTF-8 text, 'tfds:NAME', the folder of a prepared corpus, or a mixture of
            corpora: '0.7 * FOLDER + 0.3 * OTHER'
  window    the longest scored length: only documents with room for it are scored, so
            every length is scored on the same bytes
  scored    number of scored bytes at a window's end
  split     the scored split: 'test' or 'validation'
  limit     the most bytes of each split; None: all
  data_dir  folder of prepared TFDS data; None: TFDS's default
  distinct  whether windows are left out of scoring if 64 bytes of their scored ones
            stand word for word in the training split; None: unless the splits are
            published ones, those of TFDS
  order     'random': windows start anywhere; 'epochs': each window of the text once in
            an epoch, in an order that each seed and epoch has of its own

  >>> import transformer_jax as tj
  >>> from transformer_jax.numpy_interpreter import evaluate
  >>> task = tj.tasks.build("text('books/*.txt', window=4, scored=2)")
  >>> arrays = {"train_N": np.frombuffer(b"hello", np.uint8)}
  >>> batch = evaluate(lambda: task.batch(arrays, jax.random.key(0), 1, length=4))
  >>> bytes(batch.input_BL[0].tolist()), bytes(batch.target_BL[0].tolist())
  (b'hell', b'ello')
  """

  source: str = files.STDLIB
  window: int = 512
  scored: int = 64
  split: str = "test"
  limit: int | None = None
  data_dir: str | None = None
  distinct: bool | None = None
  order: str = "random"

  streamed: ClassVar[str | None] = "train_N"
  unit: ClassVar[str] = "bytes"  # of texts and of their lengths
  measures: ClassVar[tuple[str, ...]] = ("bits_per_byte",)

  def __post_init__(self):
    check_split("text", self.split)
    if not 1 <= self.scored <= self.window:
      raise DataError(
        f"text: scored is {self.scored}; choose 1 to window ({self.window}) bytes"
      )
    check_sizes("text", limit=self.limit)
    if self.order not in ORDERS:
      raise DataError(
        f"text: order is '{self.order}'.{nearest(self.order, ORDERS)} Choose"
        f" {' or '.join(ORDERS)}."
      )

  @property
  def vocabulary(self) -> int:
    return 256

  def tokens(self, length: int) -> int:
    return length

  def load(self) -> TaskData:
    """Returns train_N and scored_N (uint8) and end_W, the ends of scored windows.

    Of a prepared corpus, train_N is a HostText. Raises DataError, in one line, for
    unusable data.
    """
    if found := corpora.opened(self.source):
      return TaskData(*self._of_corpora(*found))
    documents, facts = self._read()
    documents = {name: self._keep(documents[name]) for name in documents}
    facts["bytes"] = {name: _size(documents[name]) for name in documents}
    sizes = [len(document.content) for document in documents[self.split]]
    end_W = self._ends(sizes, sum(facts["bytes"].values()))
    train_N = self._join(documents["train"], "train")
    scored_N = self._join(documents[self.split], self.split)
    end_W = self._distinct(train_N, scored_N, end_W, facts)
    arrays = {"train_N": train_N, "end_W": end_W, "scored_N": scored_N}
    return TaskData(arrays, {"source": self.source, **facts})

  def abstract(self) -> dict[str, jax.ShapeDtypeStruct]:
    text_N = shape(MANY, dtype=jnp.uint8)
    return {"train_N": text_N, "scored_N": text_N, "end_W": shape(MANY)}

  def available(self, arrays: Any) -> int:
    """Returns the number of windows of the scored split."""
    return len(arrays["end_W"])

  def batch(
    self,
    arrays: Any,
    key: jax.Array,
    batch_size: int,
    length: int,
    progress: float | jax.Array = 1.0,
  ) -> Batch:
    """Returns windows of the training text; they may cross documents.

    Arguments are those of `Task.batch`.
    """
    text = arrays["train_N"]
    N = min(windows.sizes(text))
    if N <= length:
      raise DataError(
        f"the train split of '{self.source}' has {N} bytes, shorter than one window of"
        f" {length} and the byte after it; lower the training length below {N}"
      )
    if self.order == "random":
      starts = windows.random_starts(text, key, batch_size, length + 1)
    else:
      row_B = arrays["step"] * batch_size + jnp.arange(batch_size)
      starts = windows.ordered_starts(text, arrays["order"], row_B, length)
    return self._windows(arrays, starts, length)

  def check(self, arrays: Any, length: int) -> None:
    """Raises DataError where an epoch of the training text cannot be counted."""
    if self.order == "epochs":
      windows.check_epochs(arrays["train_N"], length)

  def at_step(self, arrays: Any, key: jax.Array, step: jax.Array) -> Any:
    if self.order == "random":
      return arrays
    return arrays | {"order": key, "step": step}

  def _windows(self, arrays: Any, starts: Starts, length: int) -> Batch:
    """Returns the batch of windows that start at these places."""
    byte_BL = windows.read(arrays["train_N"], starts, length + 1)
    weight_BL = jnp.ones(byte_BL[:, 1:].shape, jnp.float32)
    at = coords.consecutive(1, length)
    return Batch(byte_BL[:, :-1], byte_BL[:, 1:], weight_BL, at)

  def target_places(self, bucket: int) -> int:
    """Returns the number of scored tokens of a window: its last ones."""
    return min(self.scored, bucket)

  def score(
    self, arrays: Any, key: jax.Array, batch_size: int, length: jax.Array, bucket: int
  ) -> Batch:
    """Returns windows that end at the same bytes at every length.

    Their scored bytes do not overlap. With fewer windows than rows, the batch is
    smaller.

    Arguments are those of `Task.score`.
    """
    if bucket > self.window:
      raise DataError(
        f"text: a length of {bucket} does not fit the scored window of {self.window};"
        f" write text(window={bucket})"
      )
    chosen_B = each_once(key, arrays["end_W"].shape[0], batch_size)
    end_B1 = jnp.asarray(arrays["end_W"])[chosen_B][:, None]
    place_L = jnp.arange(bucket)
    real_L = place_L >= bucket - length
    byte_BL = _bytes(arrays["scored_N"], end_B1 - bucket - 1 + jnp.arange(bucket + 1))
    input_BL, target_BL = jnp.where(real_L, byte_BL[:, :-1], 0), byte_BL[:, 1:]
    weight_L = (real_L & (place_L >= bucket - self.scored)).astype(jnp.float32)
    weight_BL = jnp.broadcast_to(weight_L, target_BL.shape)
    return Batch(input_BL, target_BL, weight_BL, coords.padded(real_L[None]))

  def _of_corpora(
    self, parts: list[Corpus], weights: tuple[float, ...]
  ) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns arrays and facts of prepared corpora; train_N is a HostText."""
    self._check_corpora(parts)
    scored = [part.scored(self.split) for part in parts]
    scored_N, size_D = map(np.concatenate, zip(*scored, strict=True))
    train = [part.store("train") for part in parts]
    joined = train[0] if len(train) == 1 else stores.Joined(train)
    facts: dict[str, Any] = {
      "source": self.source,
      "split": ", ".join(dict.fromkeys(part.listing["split"] for part in parts)),
      "fingerprint": "+".join(part.fingerprint for part in parts),
      self.unit: {"train": sum(joined.sizes), self.split: len(scored_N)},
    }
    end_W = self._ends(size_D.tolist(), sum(facts[self.unit].values()))
    facts["windows"] = len(end_W)
    left_out = [part for part in parts if self._leaves_out(part.listing["source"])]
    if left_out:
      place_N = np.concatenate(
        [part.repeated(self.split, parts) & (part in left_out) for part in parts]
      )
      repeated_W = overlap.windows_with(place_N, end_W, self.scored)
      end_W = self._without(repeated_W, end_W, facts)
    arrays = {"end_W": end_W, "scored_N": scored_N}
    return arrays | {"train_N": HostText(joined, weights)}, facts

  def _check_corpora(self, parts: list[Corpus]) -> None:
    """Raises DataError where corpora cannot be read by this task."""
    corpora.check_alike(parts)
    if self.limit is not None:
      raise DataError(
        f"'{self.source}' is prepared, and read as it is: leave out limit, or prepare"
        " a smaller one"
      )
    if parts[0].unit != self.unit:
      other = "tokens" if self.unit == "bytes" else "text"
      raise DataError(
        f"'{parts[0].folder}' is a corpus of {parts[0].unit}; write"
        f" {other}('{self.source}'), or prepare one of {self.unit}"
      )

  def _read(self) -> tuple[dict[str, list[Document]], dict[str, Any]]:
    if self.source.startswith(TFDS):
      splits = ("train", self.split)
      name = self.source.removeprefix(TFDS)
      return tfds.read(name, splits, self.data_dir, self.limit)
    documents = files.read(self.source)
    by_split, how = files.split(documents)
    facts = {
      "split": how,
      "fingerprint": files.fingerprint(documents),
      "files": {name: len(by_split[name]) for name in by_split},
    }
    if self.source == files.STDLIB:
      facts["python"] = platform.python_version()
    return by_split, facts

  def _keep(self, documents: list[Document]) -> list[Document]:
    """Returns the first `limit` bytes; the last document may be cut."""
    kept, room = [], self.limit if self.limit is not None else _size(documents)
    for document in documents:
      kept.append(Document(document.name, document.content[:room]))
      room -= len(kept[-1].content)
    return [document for document in kept if document.content]

  def _ends(self, sizes: Sequence[int], total: int) -> np.ndarray:
    """Returns ends of windows inside one document, `scored` bytes apart.

    sizes   bytes of each document of the scored split (tokens, in subclasses)
    total   bytes of both splits, for the message
    """
    ends, start = [], 0
    for size in sizes:
      stop = start + size
      end_D = np.arange(start + self.window + 1, stop + 1, self.scored, dtype=np.int32)
      ends.append(end_D)
      start = stop
    end_W = np.concatenate([*ends, np.zeros(0, np.int32)])
    if not len(end_W):
      raise DataError(
        f"'{self.source}' has {total} bytes and no document in its {self.split} split"
        f" of window + 1 = {self.window + 1} bytes (the longest has"
        f" {max(sizes, default=0)}); lower the lengths scored and text(window=...), or"
        " give more text"
      )
    return end_W

  def _distinct(
    self,
    train_N: np.ndarray,
    scored_N: np.ndarray,
    end_W: np.ndarray,
    facts: dict[str, Any],
  ) -> np.ndarray:
    """Returns the ends of windows that are scored, and adds facts on the others.

    train_N, scored_N   bytes of the splits (tokens, in subclasses)
    end_W               ends of all windows
    """
    if not self._leaves_out(self.source):
      facts["windows"] = len(end_W)
      return end_W
    repeated_W = overlap.repeated(train_N, scored_N, end_W, self.scored)
    return self._without(repeated_W, end_W, facts)

  def _leaves_out(self, source: str) -> bool:
    """Returns whether windows that repeat training text are not scored."""
    published = source.startswith(TFDS)
    return not published if self.distinct is None else self.distinct

  def _without(
    self, repeated_W: np.ndarray, end_W: np.ndarray, facts: dict[str, Any]
  ) -> np.ndarray:
    """Returns the ends of the other windows, or all of them where none is left."""
    facts["windows"] = len(end_W)
    count, share = int(repeated_W.sum()), repeated_W.mean()
    what = (
      f"{count:,} of {len(end_W):,} windows of the {self.split} split ({share:.1%})"
      f" repeat {overlap.GRAM} of their scored {self.unit} word for word from the"
      " training split"
    )
    if count == len(end_W):
      note(facts, f"{what}; all are scored, and their scores show what was memorized")
    elif count:
      facts["windows"] = len(end_W) - count
      facts["left_out"] = f"{what}; they are not scored"
      end_W = end_W[~repeated_W]
    return end_W

  def _join(self, documents: list[Document], split: str) -> np.ndarray:
    size = _size(documents)
    if size > MOST:
      raise DataError(
        f"the {split} split of '{self.source}' has {size} bytes, more than the {MOST}"
        " that one array counts; write text(limit=500_000_000)"
      )
    joined = b"".join(document.content for document in documents)
    return np.frombuffer(joined, np.uint8)


def _size(documents: list[Document]) -> int:
  return sum(len(document.content) for document in documents)


def _bytes(text_N: jax.Array, index_BL: jax.Array) -> jax.Array:
  return jnp.asarray(text_N)[index_BL].astype(jnp.int32)
