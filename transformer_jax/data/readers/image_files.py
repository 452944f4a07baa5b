"""Reader of labelled images: idx files, scikit-learn's digits, TFDS. No JAX here."""

import dataclasses
import hashlib
import importlib.util
import pathlib
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from transformer_jax import untrusted
from transformer_jax.data.files import DataError, unzipped
from transformer_jax.data.readers import tfds
from transformer_jax.data.readers.bitext import TFDS
from transformer_jax.data.sources import archives

DIGITS = "digits"
# UCI's digits in scikit-learn: 64 numbers from 0 to 16, and the label.
DIGITS_FILE = "datasets/data/digits.csv.gz"
BYTE = 0x08  # type code of unsigned bytes in idx files
# Prefixes of the file names of each split; the training files are cut for validation.
STARTS = {"train": "train", "validation": "train", "test": "t10k"}
CUT = 0.9  # share of the training files that is trained on; the rest is validation
PARTS = (0.8, 0.9)  # boundaries of the three splits of a single file


@dataclasses.dataclass(frozen=True, eq=False)
class Pictures:
  """Images, uint8 [N, rows, columns, channels], and their classes, int32 [N].

  >>> pictures = Pictures(np.zeros((10, 8, 8, 1), np.uint8), np.arange(10) % 2)
  >>> pictures.part(0.8, 1.0).label.tolist()
  [0, 1]
  """

  image: np.ndarray
  label: np.ndarray

  def part(self, start: float, stop: float) -> "Pictures":
    """Returns the images between two fractions of their number."""
    own = slice(*(int(len(self.label) * share) for share in (start, stop)))
    return Pictures(self.image[own], self.label[own])


def read(
  source: str, splits: tuple[str, ...], data_dir: str | None, limit: int | None
) -> tuple[dict[str, Pictures], dict[str, Any]]:
  """Returns the images of each split, and facts to record.

  source    'digits'; a .csv or .csv.gz file; a folder or Debian package with idx files;
            or 'tfds:NAME'
  splits    names of the splits to return
  data_dir  folder of prepared TFDS data; None: TFDS's default
  limit     the most images of each split; None: all

  Raises DataError.
  """
  found, facts = _reader(source)(source, splits, data_dir)
  found = {split: _first(found[split], limit) for split in splits}
  for split in splits:
    if not len(found[split].label):
      raise DataError(f"the {split} split of '{source}' holds no image; give more")
  digest = hashlib.sha256()
  for split in splits:
    digest.update(found[split].image.tobytes() + found[split].label.tobytes())
  facts |= {"fingerprint": digest.hexdigest()}
  facts["images"] = {split: len(found[split].label) for split in splits}
  return found, {"source": source, **facts}


def _first(pictures: Pictures, limit: int | None) -> Pictures:
  return Pictures(pictures.image[:limit], pictures.label[:limit])


def _reader(source: str) -> Callable:
  if source.startswith(TFDS):
    return _tfds
  table = source == DIGITS or source.endswith((".csv", ".csv.gz"))
  return _table if table else _idx


def _tfds(source, splits, data_dir):
  name, features = source.removeprefix(TFDS), ("image", "label")
  wanted = "a data set of labelled images"
  records, facts = tfds.read_arrays(name, features, wanted, splits, data_dir)
  return {split: _stacked(records[split], source) for split in splits}, facts


def _stacked(records: list[dict[str, Any]], source: str) -> Pictures:
  images = [np.asarray(record["image"], np.uint8) for record in records]
  shapes = {image.shape for image in images}
  if len(shapes) > 1:
    raise DataError(
      f"the images of '{source}' have sizes from {min(shapes)} to {max(shapes)}; name a"
      " data set whose images are alike"
    )
  label_N = np.array([record["label"] for record in records], np.int32)
  return Pictures(np.array(images, np.uint8), label_N)


def _table(source, splits, data_dir):
  """Reads lines of numbers: the pixels of a square image, then the label."""
  path = _digits() if source == DIGITS else pathlib.Path(source).expanduser()
  content = _content(path)
  if not content.strip():
    raise DataError(f"'{path}' holds no image; give more")
  try:
    table = np.loadtxt(content.decode("ascii").splitlines(), delimiter=",", ndmin=2)
  except ValueError as error:
    raise DataError(
      f"'{path}' is no table of numbers ({str(error).partition(';')[0]}); write the"
      " pixels of an image and its label on each line, with commas between"
    ) from error
  _check(table, path)
  side = int(max(table.shape[1] - 1, 0) ** 0.5)
  if not side or side * side != table.shape[1] - 1:
    raise DataError(
      f"'{path}' has {table.shape[1]} numbers on a line, which are no square image and"
      " a label"
    )
  pixel_NP, label_N = table[:, :-1], table[:, -1].astype(np.int32)
  most = max(pixel_NP.max(), 1)
  image = np.round(pixel_NP * (255 / most)).astype(np.uint8)
  return _cut(Pictures(image.reshape(-1, side, side, 1), label_N), splits)


def _check(table: np.ndarray, path: pathlib.Path) -> None:
  """Refuses numbers of which a cast to bytes and classes would make others."""
  wrong_NP = ~np.isfinite(table)
  wrong_NP[:, :-1] |= table[:, :-1] < 0  # the task refuses labels below 0
  wrong_NP[:, -1] |= np.floor(table[:, -1]) != table[:, -1]
  if wrong_NP.any():
    image, place = np.argwhere(wrong_NP)[0]
    raise DataError(
      f"'{path}' has {table[image, place]:g} among the numbers of image {image + 1};"
      " write pixels from 0 and a whole number as the label"
    )


def _cut(all_: Pictures, splits: tuple[str, ...]) -> tuple[dict, dict]:
  """Splits by place in the file: neighbours are often by one writer."""
  places = (0, *PARTS, 1)
  at = {"train": places[:2], "validation": places[1:3], "test": places[2:]}
  found = {split: all_.part(*at[split]) for split in splits}
  return found, {"split": "by place in the file"}


def _digits() -> pathlib.Path:
  spec = importlib.util.find_spec("sklearn")
  if spec is None or not spec.submodule_search_locations:
    raise DataError(
      "images('digits') reads the file of scikit-learn, which is not installed: pip"
      f" install scikit-learn, or name a copy of its {DIGITS_FILE}"
    )
  return pathlib.Path(spec.submodule_search_locations[0], DIGITS_FILE)


def _idx(source, splits, data_dir):
  """Reads a folder or a package with the four files of MNIST and its like."""
  path = pathlib.Path(source).expanduser()
  found = {}
  for split in splits:
    whole = _two(path, STARTS[split])
    shares = {"train": (0, CUT), "validation": (CUT, 1), "test": (0, 1)}
    found[split] = whole.part(*shares[split])
  return found, {"split": "by file; a tenth of the training images is for validation"}


def _two(path: pathlib.Path, start: str) -> Pictures:
  files = _files(path, start)
  image = idx(*_one(files, path, start, "images"), axes=3)
  label_N = idx(*_one(files, path, start, "labels"), axes=1).astype(np.int32)
  if len(image) != len(label_N):
    raise DataError(
      f"'{path}' has {len(image)} images and {len(label_N)} labels that start with"
      f" {start}; copy both files again"
    )
  return Pictures(image[..., None], label_N)


def _files(path: pathlib.Path, start: str) -> dict[str, bytes]:
  """Returns the contents of the files whose names have the prefix, by name."""

  def named(name):
    return pathlib.PurePath(name).name.startswith(start)

  if path.is_dir():
    return {p.name: _content(p) for p in sorted(path.iterdir()) if named(p.name)}
  if path.suffix == ".deb":
    inside = archives.contents(path, "usr/share/")
    return {name: unzipped(x, name) for name, x in inside if named(name)}
  raise DataError(
    f"'{path}' is no folder of idx files, Debian package, or .csv file; check the path,"
    " or write 'digits' or 'tfds:NAME'"
  )


def _one(
  files: dict[str, bytes], path: pathlib.Path, start: str, what: str
) -> tuple[bytes, str]:
  names = [name for name in files if what in name]
  if len(names) != 1:
    raise DataError(
      f"'{path}' holds {len(names)} files of {what} that start with {start}; put one"
      f" there, named as {start}-{what}-idx{3 if what == 'images' else 1}-ubyte.gz"
    )
  return files[names[0]], names[0]


def idx(content: bytes, name: str, axes: int) -> np.ndarray:
  """Reads an idx file of bytes: 0, 0, 8, the number of axes, their sizes, the numbers.

  http://yann.lecun.com/exdb/mnist/. Raises DataError.
  """
  head = struct.unpack(">4B", content[:4]) if len(content) >= 4 else ()
  if head != (0, 0, BYTE, axes) or len(content) < 4 + 4 * axes:
    raise DataError(f"'{name}' is no idx file of bytes with {axes} axes; copy it again")
  shape = struct.unpack(f">{axes}I", content[4 : 4 + 4 * axes])
  numbers = np.frombuffer(content, np.uint8, offset=4 + 4 * axes)
  if numbers.size != np.prod(shape, dtype=np.int64):
    raise DataError(
      f"'{name}' says {' x '.join(map(str, shape))} and holds {numbers.size} bytes;"
      " copy it again"
    )
  return numbers.reshape(shape)


def _content(path: pathlib.Path) -> bytes:
  try:
    content = untrusted.content(path)
  except OSError as error:
    raise DataError(
      f"cannot read '{path}': {error.strerror}; check the path"
    ) from error
  return unzipped(content, str(path))
