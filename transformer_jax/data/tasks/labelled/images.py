"""Classification of images by encoders that read patches.

Dosovitskiy et al., 2021. https://arxiv.org/abs/2010.11929
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from transformer_jax.data.base import (
  MANY,
  Batch,
  Task,
  TaskData,
  check_sizes,
  check_split,
  shape,
  tasks,
)
from transformer_jax.data.files import DataError
from transformer_jax.data.readers import image_files
from transformer_jax.data.tasks.algorithmic.permutation import each_once
from transformer_jax.positions.coords import Coords

SIDE = 28  # pixels on a side, as a placeholder before data is read


@tasks.register("images")
@dataclasses.dataclass(frozen=True)
class Images(Task):
  r"""Image classification at a token before the patches.

  The length is the number of patches on a side. Images are resized to it, so one model
  reads images of any resolution. Coordinates hold the row and the column of each
  patch; the token before them has no place on the grid. The model needs
  `model.embedding=patches(size=..., channels=...)` with the same numbers.

  source     'digits' (the file of an installed scikit-learn), any .csv file (the
             pixels and the label on each line), a folder or Debian package with the
             four idx files of MNIST or Fashion-MNIST, or 'tfds:NAME'
  patch      pixels on a side of a patch
  channels   numbers of a pixel
  classes    number of classes
  split      the scored split: 'test' or 'validation'
  limit      the most images of each split; None: all
  data_dir   folder of prepared TFDS data; None: TFDS's default

  >>> import pathlib, tempfile
  >>> with tempfile.TemporaryDirectory() as folder:
  ...   path = pathlib.Path(folder, "images.csv")
  ...   rows = [f"0,0,0,{n},{n % 2}" for n in range(40)]
  ...   _ = path.write_text("\n".join(rows))
  ...   task = tasks.build(f"images('{path}', patch=1, classes=2)")
  ...   arrays, facts = task.load()
  >>> facts["images"], task.tokens(2)
  ({'train': 32, 'test': 4}, 5)
  """

  source: str
  patch: int = 4
  channels: int = 1
  classes: int = 10
  split: str = "test"
  limit: int | None = None
  data_dir: str | None = None

  kind: ClassVar[str] = "encoder"
  whole: ClassVar[bool] = True
  measures: ClassVar[tuple[str, ...]] = ("accuracy",)

  def __post_init__(self):
    check_split("images", self.split)
    sizes = {"patch": self.patch, "channels": self.channels, "classes": self.classes}
    check_sizes("images", **sizes, limit=self.limit)

  @property
  def vocabulary(self) -> int:
    return self.classes

  def tokens(self, length: int) -> int:
    """Returns the patches and the place before them."""
    return 1 + length * length

  def example(self, length: int) -> jax.Array:
    side = length * self.patch
    return jnp.zeros((1, self.channels, side, side))

  def load(self) -> TaskData:
    """Returns image, uint8 [N, rows, columns, channels], and label_N of both splits.

    Raises DataError, in one line, for unusable data.
    """
    splits = ("train", self.split)
    found, facts = image_files.read(self.source, splits, self.data_dir, self.limit)
    for split in splits:
      self._check(found[split], split)
    arrays = {
      name: {"image": found[split].image, "label_N": found[split].label}
      for name, split in (("train", "train"), ("scored", self.split))
    }
    return TaskData(arrays, facts)

  def abstract(self) -> dict[str, dict[str, jax.ShapeDtypeStruct]]:
    image = shape(MANY, SIDE, SIDE, self.channels, dtype=jnp.uint8)
    split = {"image": image, "label_N": shape(MANY)}
    return {"train": split, "scored": split}

  def available(self, arrays: Any) -> int:
    """Returns the number of images of the scored split."""
    return len(arrays["scored"]["label_N"])

  def batch(
    self,
    arrays: Any,
    key: jax.Array,
    batch_size: int,
    length: int,
    progress: float | jax.Array = 1.0,
  ) -> Batch:
    """Returns images of the training split, drawn with replacement.

    Arguments are those of `Task.batch`.
    """
    N = arrays["train"]["label_N"].shape[0]
    chosen_B = jax.random.randint(key, (batch_size,), 0, N)
    return self._batch(arrays["train"], chosen_B, length, length)

  def score(
    self, arrays: Any, key: jax.Array, batch_size: int, length: jax.Array, bucket: int
  ) -> Batch:
    """Returns images with `length` patches on a side, in the corner of a larger grid.

    Each image comes once; with fewer images than rows, the batch is smaller.

    Arguments are those of `Task.score`.
    """
    chosen_B = each_once(key, arrays["scored"]["label_N"].shape[0], batch_size)
    return self._batch(arrays["scored"], chosen_B, length, bucket)

  def _batch(
    self, data: Any, chosen_B: jax.Array, length: Any, max_length: int
  ) -> Batch:
    image = jnp.asarray(data["image"])[chosen_B]
    label_B = jnp.asarray(data["label_N"])[chosen_B]
    input_ = resized(image, length * self.patch, max_length * self.patch)
    first_L = jnp.arange(self.tokens(max_length)) == 0
    target_BL = jnp.where(first_L, label_B[:, None], 0)
    weight_BL = jnp.broadcast_to(first_L, target_BL.shape).astype(jnp.float32)
    return Batch(input_, target_BL, weight_BL, grid(length, max_length))

  def _check(self, found: image_files.Pictures, split: str) -> None:
    channels, most = found.image.shape[-1], int(found.label.max()) + 1
    if channels != self.channels:
      raise DataError(
        f"the images of '{self.source}' have {channels} channels; write"
        f" images(channels={channels}) and patches(channels={channels})"
      )
    if most > self.classes or found.label.min() < 0:
      raise DataError(
        f"the {split} split of '{self.source}' has labels from {found.label.min()} to"
        f" {most - 1}; write images(classes={most}), and labels from 0"
      )


def resized(image: jax.Array, side: int | jax.Array, max_length: int) -> jax.Array:
  """Returns uint8 images [B, rows, columns, C] resized to side x side, from -1 to 1.

  They are in the corner of [B, C, max_length, max_length], 0 elsewhere; side may be
  traced.
  """
  value = jnp.moveaxis(image, -1, 1).astype(jnp.float32) / 127.5 - 1
  B, C, rows, columns = value.shape
  scale = jnp.array([side / rows, side / columns], jnp.float32)
  shape, still = (B, C, max_length, max_length), jnp.zeros(2, jnp.float32)
  large = jax.image.scale_and_translate(value, shape, (2, 3), scale, still, "linear")
  inside_P = jnp.arange(max_length) < side
  return jnp.where(inside_P[:, None] & inside_P, large, 0.0)


def grid(length: int | jax.Array, max_length: int) -> Coords:
  """Returns the places of one token and then length x length patches, row after row.

  The patches lie in a grid of max_length x max_length; the rest of it is padding.
  """
  n_P = jnp.arange(max_length * max_length)
  row_P, column_P = n_P // max_length, n_P % max_length
  on_P = (row_P < length) & (column_P < length)

  def place(x_P, first):
    whole = jnp.concatenate([jnp.full(1, first), jnp.where(on_P, x_P, -1)])
    return whole.astype(jnp.int32)[None]

  order_1L = place(1 + row_P * length + column_P, 0)
  data = {"row_BL": place(row_P, -1), "column_BL": place(column_P, -1)}
  real_1L = (order_1L >= 0).astype(jnp.int32)
  at = Coords(order_1L, jnp.maximum(order_1L, 0), order_1L, real_1L, data)
  return at.bidirectional()
