"""Classification of signals in time, as sounds are, by encoders that read patches."""

import dataclasses
import hashlib
import json
import pathlib
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.data.base import (
  MANY,
  Batch,
  Task,
  TaskData,
  check_fitted,
  check_sizes,
  check_split,
  shape,
  tasks,
)
from transformer_jax.data.files import DataError
from transformer_jax.data.readers import number_table
from transformer_jax.data.readers.number_table import NumberTable
from transformer_jax.data.tasks.algorithmic.permutation import each_once
from transformer_jax.positions import coords

FILE = "signals.json"  # in a run's folder
EXAMPLE, LABEL = "example", "label"  # columns; all others are channels


@dataclasses.dataclass(frozen=True)
class SignalLabels:
  """Names of the classes, and mean and standard deviation of each channel in training.

  >>> SignalLabels(("a", "e"), {"c0": (0.0, 1.0)}).labels[1]
  'e'
  """

  labels: tuple[str, ...]
  channels: dict[str, tuple[float, float]]


@dataclasses.dataclass(frozen=True, eq=False)
class SignalSet:
  """Examples laid end to end: numbers of each moment, and where an example begins.

  value_TC   numbers of each moment
  start_E    first moment of each example
  size_E     its moments
  labels     of each example

  >>> one = SignalSet(np.zeros((5, 2)), np.array([0, 3]), np.array([3, 2]), ["a", "b"])
  >>> one.value_TC[one.start_E[1] :].shape
  (2, 2)
  """

  value_TC: np.ndarray
  start_E: np.ndarray
  size_E: np.ndarray
  labels: list[str]


@tasks.register("signals")
@dataclasses.dataclass(frozen=True)
class Signals(Task):
  """Classification of a signal at a token before its patches; the length is patches.

  An encoder reads patches of `size` moments, each of `channels` numbers, after a class
  token. Longer signals are cut, so longer lengths read more of the same ones; a last
  patch that a signal fills in part is 0 elsewhere. Numbers are standardized by the
  training split. The model needs `model.embedding=signal(size=..., channels=...)` with
  the same numbers, and `model.tied=False`.

  source    a folder with files train.csv, validation.csv and test.csv, or
            'japanese_vowels', which is prepared from a package. A line is one moment:
            the columns `example` and `label`, and one for each channel
  size      moments of a patch
  channels  numbers of a moment
  classes   number of classes
  split     the scored split: 'test' or 'validation'
  data_dir  folder of prepared data; None: TFDS's default

  The facts have the accuracy of two baselines: the most common class, and the nearest
  class by the mean and the standard deviation of each channel over time.

  >>> import pathlib, tempfile
  >>> with tempfile.TemporaryDirectory() as folder:
  ...   for name in ("train", "test"):
  ...     rows = [f"{n // 4},{'ab'[n // 4 % 2]},{n // 4 % 2}" for n in range(40)]
  ...     text = "example,label,loud\\n" + "\\n".join(rows)
  ...     _ = pathlib.Path(folder, f"{name}.csv").write_text(text)
  ...   task = tasks.build(f"signals('{folder}', size=2, channels=1, classes=2)")
  ...   arrays, facts = task.load()
  >>> facts["signals"], facts["baselines"], task.tokens(2)
  ({'train': 10, 'test': 10}, {'majority': 0.5, 'nearest_class': 1.0}, 3)
  """

  source: str
  size: int = 4
  channels: int = 1
  classes: int = 10
  split: str = "test"
  data_dir: str | None = None

  kind: ClassVar[str] = "encoder"
  whole: ClassVar[bool] = True
  measures: ClassVar[tuple[str, ...]] = ("accuracy",)

  def __post_init__(self):
    check_split("signals", self.split)
    check_sizes("signals", size=self.size, channels=self.channels)
    check_sizes("signals", 2, classes=self.classes)

  @property
  def vocabulary(self) -> int:
    return self.classes

  def tokens(self, length: int) -> int:
    """Returns the patches and the place before them."""
    return 1 + length

  def example(self, length: int) -> jax.Array:
    return jnp.zeros((1, length * self.size, self.channels))

  def load(self) -> TaskData:
    """Returns the arrays of the train and the scored split, facts, and SignalLabels.

    Each split has value_TC, standardized numbers of all examples end to end, start_E,
    size_E and label_E. Raises DataError, in one line, for unusable data.
    """
    folder, facts = number_table.located(self.source, "signals", self.data_dir)
    splits = ("train", self.split)
    tables = {split: number_table.read(folder / f"{split}.csv") for split in splits}
    channels = self._channels(tables)
    found = {split: _examples(table, channels) for split, table in tables.items()}
    fitted = self._fitted(found, channels)
    moments_C2 = np.array([fitted.channels[name] for name in channels])
    arrays = {
      name: self._arrays(found[split], fitted, moments_C2)
      for name, split in (("train", "train"), ("scored", self.split))
    }
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(arrays):
      digest.update(leaf.tobytes())
    baselines = _baselines(arrays)
    return TaskData(
      arrays,
      facts
      | {
        "fingerprint": digest.hexdigest(),
        "signals": {split: len(each.labels) for split, each in found.items()},
        "moments": {split: len(each.value_TC) for split, each in found.items()},
        "labels": len(fitted.labels),
        "baselines": baselines,
        "guess": {"accuracy": baselines["majority"]},
      },
      fitted,
    )

  def _channels(self, tables: dict[str, NumberTable]) -> list[str]:
    """Returns the columns of channels. Raises DataError for another number of them."""
    train = tables["train"]
    channels = [name for name in train.columns if name not in (EXAMPLE, LABEL)]
    if len(channels) != self.channels:
      raise DataError(
        f"'{train.where}' has {len(channels)} columns besides {EXAMPLE} and {LABEL};"
        f" write signals(channels={len(channels)}) and signal(channels="
        f"{len(channels)})"
      )
    return channels

  def _fitted(self, found: dict[str, SignalSet], channels: list[str]) -> SignalLabels:
    """Returns labels and moments of the training split. Raises DataError."""
    train = found["train"]
    labels = sorted({*train.labels})
    if not 2 <= len(labels) <= self.classes:
      raise DataError(
        f"the train split of '{self.source}' has {len(labels)} labels and the task"
        f" classes={self.classes}; write signals(classes={max(2, len(labels))}), and"
        " give two labels at least"
      )
    if unknown := sorted({*found[self.split].labels} - {*labels}):
      raise DataError(
        f"the {self.split} split of '{self.source}' has the label '{unknown[0]}', which"
        " the train split does not have; move examples between them"
      )
    mean_C, deviation_C = train.value_TC.mean(0), train.value_TC.std(0)
    moments = zip(mean_C, np.maximum(deviation_C, 1e-6), strict=True)
    pairs = [(float(mean), float(deviation)) for mean, deviation in moments]
    return SignalLabels(tuple(labels), dict(zip(channels, pairs, strict=True)))

  def _arrays(
    self, found: SignalSet, fitted: SignalLabels, moments_C2: np.ndarray
  ) -> dict[str, np.ndarray]:
    value_TC = (found.value_TC - moments_C2[:, 0]) / moments_C2[:, 1]
    label_E = [fitted.labels.index(label) for label in found.labels]
    return {
      "value_TC": value_TC.astype(np.float32),
      "start_E": found.start_E.astype(np.int32),
      "size_E": found.size_E.astype(np.int32),
      "label_E": np.array(label_E, np.int32),
    }

  def abstract(self) -> dict[str, dict[str, jax.ShapeDtypeStruct]]:
    split = {name: shape(MANY) for name in ("start_E", "size_E", "label_E")}
    split["value_TC"] = shape(MANY, self.channels, dtype=jnp.float32)
    return {"train": split, "scored": split}

  def keep(self, folder: pathlib.Path, fitted: SignalLabels) -> None:
    """Saves labels and scales. Raises DataError if the folder has others."""
    check_fitted(self, fitted, SignalLabels)
    path, text = folder / FILE, json.dumps(dataclasses.asdict(fitted), indent=1)
    if path.exists() and path.read_text(encoding="utf-8") != text:
      raise DataError(f"{path} is of other data: its labels or scales differ")
    path.write_text(text, encoding="utf-8")

  def available(self, arrays: Any) -> int:
    """Returns the number of signals of the scored split."""
    return len(arrays["scored"]["label_E"])

  def batch(
    self,
    arrays: Any,
    key: jax.Array,
    batch_size: int,
    length: int,
    progress: float | jax.Array = 1.0,
  ) -> Batch:
    """Returns signals of the training split, drawn with replacement.

    Arguments are those of `Task.batch`.
    """
    E = arrays["train"]["label_E"].shape[0]
    chosen_B = jax.random.randint(key, (batch_size,), 0, E)
    return self._batch(arrays["train"], chosen_B, length, length)

  def score(
    self, arrays: Any, key: jax.Array, batch_size: int, length: jax.Array, bucket: int
  ) -> Batch:
    """Returns the first `length` patches of signals; each comes once.

    Arguments are those of `Task.score`. Padding is on the right.
    """
    chosen_B = each_once(key, arrays["scored"]["label_E"].shape[0], batch_size)
    return self._batch(arrays["scored"], chosen_B, length, bucket)

  def _batch(self, data: Any, chosen_B: jax.Array, length: Any, bucket: int) -> Batch:
    start_B1, size_B1, label_B1 = (
      jnp.asarray(data[name])[chosen_B][:, None]
      for name in ("start_E", "size_E", "label_E")
    )
    moment_T = jnp.arange(bucket * self.size)
    end_B1 = jnp.minimum(size_B1, length * self.size)
    inside_BT = moment_T < end_B1
    last = data["value_TC"].shape[0] - 1
    at_BT = jnp.minimum(start_B1 + moment_T, last)
    x_BTC = jnp.where(inside_BT[..., None], jnp.asarray(data["value_TC"])[at_BT], 0.0)
    # A patch is there if the signal has its first moment.
    real_BL = jnp.pad(
      inside_BT[:, :: self.size], ((0, 0), (1, 0)), constant_values=True
    )
    first_L = jnp.arange(real_BL.shape[1]) == 0
    target_BL = jnp.where(first_L, label_B1, 0)
    weight_BL = jnp.broadcast_to(first_L, target_BL.shape).astype(jnp.float32)
    return Batch(x_BTC, target_BL, weight_BL, coords.padded(real_BL).bidirectional())


def _examples(table: NumberTable, channels: list[str]) -> SignalSet:
  """Returns the examples of a table. Raises DataError for one with two labels."""
  example_T, label_T = table.column(EXAMPLE), table.column(LABEL)
  value_TC = np.stack([table.numbers(name) for name in channels], axis=1)
  new_T = [n == 0 or x != example_T[n - 1] for n, x in enumerate(example_T)]
  start_E = np.flatnonzero(new_T)
  for n, new in enumerate(new_T):
    if not new and label_T[n] != label_T[n - 1]:
      raise DataError(
        f"'{table.where}' line {table.lines[n]}: example {example_T[n]} has the labels"
        f" '{label_T[n - 1]}' and '{label_T[n]}'; give it one"
      )
  if len({example_T[n] for n in start_E}) < len(start_E):
    raise DataError(
      f"'{table.where}' has lines of one example apart from one another; sort them"
    )
  size_E = np.diff(np.append(start_E, len(example_T)))
  return SignalSet(value_TC, start_E, size_E, [label_T[n] for n in start_E])


def _baselines(arrays: dict[str, dict[str, np.ndarray]]) -> dict[str, float]:
  """Returns the accuracy of the most common class, and of the nearest class."""

  def features(data: dict[str, np.ndarray]) -> np.ndarray:
    parts = np.split(data["value_TC"], data["start_E"][1:])
    return np.array([np.concatenate([x.mean(0), x.std(0)]) for x in parts])

  train, scored = arrays["train"], arrays["scored"]
  train_EF, scored_EF = features(train), features(scored)
  classes = np.unique(train["label_E"])
  centre_KF = np.array([train_EF[train["label_E"] == k].mean(0) for k in classes])
  distance_EK = np.square(scored_EF[:, None] - centre_KF).sum(-1)
  nearest_E = classes[distance_EK.argmin(1)]
  usual = np.bincount(train["label_E"]).argmax()
  found = {"majority": usual, "nearest_class": nearest_E}
  return {k: round(float((x == scored["label_E"]).mean()), 4) for k, x in found.items()}
