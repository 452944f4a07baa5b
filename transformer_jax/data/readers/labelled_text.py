"""Reader of labelled text: examples from files and TFDS, and their splits. No JAX."""

import collections
import dataclasses
import hashlib
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

from transformer_jax.data import files
from transformer_jax.data.base import note
from transformer_jax.data.files import SPLITS, DataError
from transformer_jax.data.readers import bitext, tfds
from transformer_jax.data.readers.bitext import STEMS, TFDS
from transformer_jax.data.readers.table_columns import Say

# Takes a file, and a callback for notes on its first line.
Reader = Callable[[pathlib.Path, Say], Iterable["Example"]]
Splits = dict[str, list["Example"]]


@dataclasses.dataclass(frozen=True)
class Example:
  """Labelled example: one text with its label, or words with their tags.

  parts      the text, or the words of a sentence
  labels     one for each part
  where      the file and the line, for messages
  document   its document, or ""; all examples of a document are in one split
  second     the second text of a pair, without a label

  >>> pair = Example(("a dog",), ("entailed",), "line 1", second=("an animal",))
  >>> pair.texts
  ('a dog', 'an animal')
  """

  parts: tuple[str, ...]
  labels: tuple[str, ...]
  where: str
  document: str = ""
  second: tuple[str, ...] = ()

  @property
  def texts(self) -> tuple[str, ...]:
    """All texts: the parts and the second text."""
    return *self.parts, *self.second


class ExampleFormat:
  """Base class of file formats of labelled text.

  wanted   description of a usable TFDS data set, for messages
  also     optional features

  >>> from transformer_jax.data.tasks.labelled.tagging import SentenceFormat
  >>> SentenceFormat("words", "tags", "", "").features
  ('words', 'tags')
  """

  wanted: ClassVar[str]
  also: ClassVar[tuple[str, ...]] = ("document",)

  @property
  def features(self) -> tuple[str, ...]:
    """Required features of a TFDS data set."""
    raise NotImplementedError

  def record(self, record: dict[str, Any], where: str) -> Iterator[Example]:
    """Yields the examples of a TFDS record."""
    raise NotImplementedError

  @property
  def readers(self) -> dict[str, Reader]:
    """Readers of files by suffix; "" is any other suffix."""
    raise NotImplementedError

  def folder(self, path: pathlib.Path, say: Say) -> Iterator[Example]:
    """Yields the examples of a folder without a train file."""
    raise NotImplementedError

  def file(self, path: pathlib.Path, say: Say) -> list[Example]:
    """Returns the examples of one file, packed by gzip or not. Raises DataError.

    say   callback for notes to the user about the file
    """
    readers = self.readers
    reader = readers.get(files.suffix(path), readers.get(""))
    if reader is None:
      raise DataError(
        f"'{path}' is no file of examples; name one that ends in {' or '.join(readers)}"
      )
    return list(reader(path, say))


def read(
  source: str,
  example_format: ExampleFormat,
  splits: tuple[str, ...],
  data_dir: str | None = None,
  limit: int | None = None,
) -> tuple[Splits, dict[str, Any]]:
  """Returns the usable examples of each split, and facts to record.

  source          'tfds:NAME'; a file; a folder with files train, validation and test,
                  or with the files that `ExampleFormat.folder` reads
  example_format  reader of files and records
  splits          names of the splits to return
  data_dir        folder of prepared TFDS data; None: TFDS's default
  limit           the most examples of each split; None: all

  Examples with an empty text are left out and counted. Raises DataError for any other
  fault.
  """
  if source.startswith(TFDS):
    found, facts = _records(source.removeprefix(TFDS), example_format, splits, data_dir)
  else:
    notes: list[str] = []
    path = pathlib.Path(source).expanduser()
    found, facts = _files(path, example_format, splits, notes.append)
    note(facts, *notes)

  def whole(x):
    return "".join(x.parts) and all(x.second)

  kept = {split: [*filter(whole, found[split])] for split in splits}
  facts["left_out"] = {
    split: bitext.left_out(found[split], kept[split], "empty") for split in splits
  }
  kept = {split: kept[split][:limit] for split in splits}
  for split in splits:
    if not kept[split]:
      raise DataError(
        f"the {split} split of '{source}' holds no example; give more text"
      )
  facts["fingerprint"] = fingerprint(x for split in splits for x in kept[split])
  return kept, {"source": source, **facts}


def fingerprint(examples: Iterable[Example]) -> str:
  """Returns the SHA-256 of all examples, in order."""
  digest = hashlib.sha256()
  for example in examples:
    digest.update("\0".join((*example.texts, *example.labels, "")).encode())
  return digest.hexdigest()


def text(value: Any, what: str, where: str) -> str:
  """Returns a field as a string; integers are accepted. Raises DataError."""
  if isinstance(value, bool) or not isinstance(value, (str, int)):
    raise DataError(f"{where} has no text '{what}'; write it on every line")
  return str(value)


def label(value: str, where: str) -> str:
  """Returns a label, stripped. Raises DataError when it is empty."""
  if not value.strip():
    raise DataError(f"{where} has an empty label; write one, or leave out the line")
  return value.strip()


def _records(
  name: str,
  example_format: ExampleFormat,
  splits: tuple[str, ...],
  data_dir: str | None,
) -> tuple[Splits, dict[str, Any]]:
  records, facts = tfds.read_records(
    name,
    example_format.features,
    example_format.wanted,
    splits,
    data_dir,
    example_format.also,
  )
  found = {
    split: [
      example
      for n, record in enumerate(records[split])
      for example in example_format.record(record, f"tfds:{name} {split} record {n}")
    ]
    for split in splits
  }
  return found, facts


def _files(
  path: pathlib.Path, example_format: ExampleFormat, splits: tuple[str, ...], say: Say
) -> tuple[Splits, dict[str, Any]]:
  if path.is_file():
    return _cut(example_format.file(path, say))
  if not path.is_dir():
    raise DataError(
      f"there is no file or folder '{path}' in {pathlib.Path.cwd()}; check the path, or"
      " write 'tfds:NAME'"
    )
  there = {split: _find(path, split, example_format) for split in SPLITS}
  if there["train"] is None:
    return _cut(example_format.folder(path, say))
  if there["validation"] is None and there["test"] is None:
    return _cut(example_format.file(there["train"], say))
  paths = {split: file for split in splits if (file := there[split]) is not None}
  missing = [split for split in splits if split not in paths]
  if missing:
    name = missing[0] + files.suffix(there["train"])
    raise DataError(
      f"folder '{path}' holds no {missing[0]} file; add {name}, or score the split that"
      " is there with split='...'"
    )
  return {x: example_format.file(paths[x], say) for x in splits}, {
    "split": "by file name"
  }


def _find(
  folder: pathlib.Path, split: str, example_format: ExampleFormat
) -> pathlib.Path | None:
  """Returns the path of a split's file, or None."""
  plain = [
    stem + suffix
    for stem in STEMS[split]
    for suffix in example_format.readers
    if suffix
  ]
  names = [name + packed for name in plain for packed in ("", files.GZIP)]
  return next((folder / name for name in names if (folder / name).is_file()), None)


def _cut(examples: Iterable[Example]) -> tuple[Splits, dict[str, Any]]:
  """Splits by a hash of the document or, where there is none, of the text.

  Equal texts are in one split, and files sorted by label are split evenly.
  """
  found = collections.defaultdict(list)
  for example in examples:
    found[files.split_of(example.document or "\0".join(example.texts))].append(example)
  return {split: found[split] for split in SPLITS}, {"split": "by document or text"}
