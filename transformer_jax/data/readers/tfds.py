"""Reader of TensorFlow Datasets, without TensorFlow and without downloads.

Prepared data is read in two formats: ArrayRecord, which `prepare` writes, and TFRecord,
the format of most data that already exists.
"""

import itertools
import os
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

from transformer_jax.data import files
from transformer_jax.data.files import DataError, Document
from transformer_jax.data.readers.tfds_builders import opened, origin, prepare_command

FEATURE = "text"


def read(
  name: str, splits: tuple[str, ...], data_dir: str | None, limit: int | None
) -> tuple[dict[str, list[Document]], dict[str, Any]]:
  """Returns one document for each split, its records joined by newlines, and facts.

  limit: the most bytes of each split; None: all. Raises DataError.
  """
  built = opened(name, data_dir, (FEATURE,), "a data set of plain text")
  documents = {split: [_join(built, name, split, limit)] for split in splits}
  facts = {
    "split": "by TFDS",
    "fingerprint": files.fingerprint(documents[split][0] for split in splits),
    "files": {split: len(built.info.splits[split].filenames) for split in splits},
    **origin(built),
  }
  return documents, facts


def read_pairs(
  name: str,
  languages: tuple[str, str],
  splits: tuple[str, ...],
  data_dir: str | None,
  limit: int | None,
) -> tuple[dict[str, list[tuple[str, ...]]], dict[str, Any]]:
  """Returns (text, text, where) of each split in the order of `languages`, and facts.

  name        of the data set, as in wmt14_translate/de-en
  languages   features with the two sides
  splits      names of the splits to return
  data_dir    folder of prepared data; None: TFDS's default
  limit       the most pairs of each split; None: all

  Raises DataError.
  """
  built = opened(name, data_dir, languages, "a data set of translations, or its pair")
  pairs = {}
  for split in splits:
    examples = itertools.islice(_examples(built, name, split), limit)
    pairs[split] = [
      (*(text_of(example[x], name, split, n) for x in languages), f"{split} record {n}")
      for n, example in enumerate(examples)
    ]
  return pairs, {"split": "by TFDS", **origin(built)}


def read_arrays(
  name: str,
  features: tuple[str, ...],
  wanted: str,
  splits: tuple[str, ...],
  data_dir: str | None,
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, Any]]:
  """Returns the undecoded records of each split, and facts. Raises DataError.

  name       of the data set
  features   required features
  wanted     description of a usable data set, for messages
  splits     names of the splits to return
  data_dir   folder of prepared data; None: TFDS's default
  """
  built = opened(name, data_dir, features, wanted)
  records = {split: [*_examples(built, name, split)] for split in splits}
  return records, {"split": "by TFDS", **origin(built)}


def read_records(
  name: str,
  features: tuple[str, ...],
  wanted: str,
  splits: tuple[str, ...],
  data_dir: str | None,
  also: tuple[str, ...] = ("document",),
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, Any]]:
  """Returns the named features of all records of each split, and facts.

  Text is decoded, classes have their names, and arrays are lists.

  name       of the data set
  features   required features
  wanted     description of a usable data set, for messages
  splits     names of the splits to return
  data_dir   folder of prepared data; None: TFDS's default
  also       optional features
  """
  built = opened(name, data_dir, features, wanted)
  kinds = built.info.features
  keys = [key for key in (*features, *also) if key in kinds]
  records = {}
  for split in splits:
    examples = enumerate(_examples(built, name, split))
    records[split] = [
      {key: _plain(x[key], kinds[key], (name, split, n)) for key in keys}
      for n, x in examples
    ]
  return records, {"split": "by TFDS", **origin(built)}


def _plain(value: Any, kind: Any, where: tuple[str, str, int]) -> Any:
  """Returns text, the name of a class, a number, or a list of them.

  value   of a feature
  kind    the feature, which has the names of classes
  where   data set, split and number of the record, for messages
  """
  if isinstance(value, (bytes, str)):
    name, split, number = where
    return text_of(value, name, split, number)
  if isinstance(value, (list, tuple, np.ndarray)) and np.ndim(value):
    return [_plain(x, getattr(kind, "feature", kind), where) for x in value]
  names, value = getattr(kind, "names", None), np.asarray(value).item()
  return names[value] if names and value >= 0 else value  # -1: no label


def text_of(text: str | bytes, name: str, split: str, number: int) -> str:
  """Returns a record's text. Raises DataError when it is not UTF-8."""
  if isinstance(text, str):  # ArrayRecord gives bytes, some readers str
    return text
  files.check_utf8(text, f"tfds:{name} {split} record {number}")
  return text.decode("utf-8")


def _join(built: Any, name: str, split: str, limit: int | None) -> Document:
  records, size = [], 0
  for number, example in enumerate(_examples(built, name, split)):
    records.append(text_of(example[FEATURE], name, split, number).encode())
    size += len(records[-1]) + 1
    if limit is not None and size >= limit:
      break
  if size == len(records):
    raise DataError(f"the {split} split of tfds:{name} is empty; prepare it again")
  return Document(f"{built.info.full_name}/{split}", b"\n".join(records))


def has_split(name: str, data_dir: str | None, split: str) -> bool:
  """Returns whether a prepared data set of plain text has a split."""
  return (
    split in opened(name, data_dir, (FEATURE,), "a data set of plain text").info.splits
  )


def texts(name: str, data_dir: str | None, split: str) -> Iterator[str]:
  """Yields the records of a split of plain text one by one, with newlines between."""
  built = opened(name, data_dir, (FEATURE,), "a data set of plain text")
  for number, example in enumerate(_examples(built, name, split)):
    yield ("\n" if number else "") + text_of(example[FEATURE], name, split, number)


def _examples(built: Any, name: str, split: str) -> Iterator[dict[str, Any]]:
  if split not in built.info.splits:
    raise DataError(
      f"tfds:{name} has no split '{split}', only {', '.join(built.info.splits)}; a task"
      " needs 'train' and the one it scores: write split='test' or 'validation'"
    )
  file_format = built.info.file_format.value
  if file_format == "array_record":
    source = built.as_data_source(split=split)
    return (source[i] for i in range(len(source)))
  if file_format == "tfrecord":
    decode = built.info.features.deserialize_example_np
    paths = [os.fspath(path) for path in built.info.splits[split].filepaths]
    return (decode(record) for path in paths for record in tfrecords(path))
  raise DataError(
    f"tfds:{name} is prepared as {file_format} in {built.data_dir}, which only"
    f" TensorFlow reads; prepare it in another folder: {prepare_command(name, 'NEW')}"
  )


def tfrecords(path: str) -> Iterator[bytes]:
  """Yields the records of a TFRecord file: size, checksum, record, checksum, ...

  https://www.tensorflow.org/tutorials/load_data/tfrecord. Raises DataError when the
  file ends inside a record; the checksums are not verified.
  """
  with _open(path) as file:
    while head := file.read(12):
      size = struct.unpack("<Q", head[:8])[0] if len(head) == 12 else 0
      left = os.fstat(file.fileno()).st_size - file.tell()
      if len(head) < 12 or size + 4 > left:
        raise DataError(
          f"'{path}' ends inside the record at byte {file.tell() - len(head)};"
          " copy it again or prepare the data again"
        )
      yield file.read(size)
      file.seek(4, os.SEEK_CUR)


def _open(path: str) -> Any:
  try:
    return open(path, "rb")
  except OSError as error:
    raise DataError(
      f"cannot read '{path}': {error.strerror}; prepare the data again"
    ) from error
