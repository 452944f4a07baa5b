"""Which of several labels a text has. Devlin et al., 2019, section 4.

https://arxiv.org/abs/1810.04805
"""

import dataclasses
import itertools
import json
import pathlib
from collections.abc import Iterator
from typing import Any, ClassVar

import jax.numpy as jnp

from transformer_jax.data import examples, files
from transformer_jax.data.base import tasks
from transformer_jax.data.examples import Example, Form
from transformer_jax.data.files import DataError
from transformer_jax.data.labels import NONE, Labelled

KINDS = ("encoder", "decoder")


@tasks.register("classification")
@dataclasses.dataclass(frozen=True)
class Classification(Labelled):
  """Predicts the label of a text: an encoder at its start, a decoder at its end.

  A .tsv file has a text, a tab and a label on each line, and maybe a tab and the
  document; lines of a .jsonl file are {"text": "...", "label": "..."}; in a folder of
  folders each holds .txt files of one label.

  text, label  what the two are called in .jsonl files and TFDS data
  lines        texts are cut into pieces of so many lines; 0: whole texts
  kind         which kind of model reads it: encoder or decoder

  The other arguments are those of `Labelled`, transformer_jax/data/labels.py.
  """

  text: str = "text"
  label: str = "label"
  lines: int = 0
  kind: str = "encoder"

  def __post_init__(self):
    super().__post_init__()
    if self.kind not in KINDS:
      raise DataError(
        f"classification: kind is {self.kind!r}; write encoder or decoder"
      )
    if self.lines < 0:
      raise DataError(f"classification: lines is {self.lines}; write 0 or more")

  @property
  def form(self):
    return Texts(self.text, self.label, self.lines)

  def targets(self, label_N, first_B1, index_BL, place_BL, size_B1):
    where_B1 = 0 if self.kind == "encoder" else size_B1 + 1
    return jnp.where(place_BL == where_B1, label_N[first_B1], NONE)


@dataclasses.dataclass(frozen=True)
class Texts(Form):
  """Texts with a label."""

  text: str
  label: str
  lines: int

  wanted: ClassVar[str] = (
    "a data set of texts with labels, or its features: text='...', label='...'"
  )

  @property
  def features(self):
    return self.text, self.label

  @property
  def readers(self):
    return {".tsv": self._tsv, ".jsonl": self._jsonl}

  def record(self, record: dict[str, Any], where: str) -> Iterator[Example]:
    if record[self.label] == NONE:
      raise DataError(f"{where} has no label; score another split with split='...'")
    document = str(record.get("document", ""))
    return self._pieces(record[self.text], str(record[self.label]), where, document)

  def folder(self, path: pathlib.Path) -> Iterator[Example]:
    paths = sorted(path.glob("*/*.txt"))
    if not paths:
      raise DataError(
        f"folder '{path}' holds no train.tsv, no train.jsonl and no folders with .txt"
        " files, one folder for each label; put some there"
      )
    for each in paths:
      name = each.relative_to(path).as_posix()
      text = "\n".join(files.lines(each))
      yield from self._pieces(text, each.parent.name, f"'{each}'", name)

  def _tsv(self, path: pathlib.Path) -> Iterator[Example]:
    for number, line in enumerate(files.lines(path), 1):
      fields, where = line.split("\t"), f"'{path}' line {number}"
      if not line.strip() or number == 1 and fields[:2] == [*self.features]:
        continue
      if not 2 <= len(fields) <= 3:
        raise DataError(
          f"{where} has {len(fields)} of the 2 or 3 fields it needs: text TAB label,"
          " and TAB document if you like; complete it"
        )
      text, label, document = (*fields, "")[:3]
      yield from self._pieces(text, label, where, document)

  def _jsonl(self, path: pathlib.Path) -> Iterator[Example]:
    for number, said in json_lines(path):
      where = f"'{path}' line {number}"
      text, label = (examples.text(said.get(x), x, where) for x in self.features)
      yield from self._pieces(text, label, where, str(said.get("document", "")))

  def _pieces(
    self, text: str, label: str, where: str, document: str
  ) -> Iterator[Example]:
    """Yields a text, or pieces of so many lines, which belong together."""
    labels = (examples.label(label, where),)
    if not self.lines:
      yield Example((text.strip(),), labels, where, document)
      return
    lines = (line for line in text.split("\n") if line.strip())
    pieces = iter(lambda: "\n".join(itertools.islice(lines, self.lines)), "")
    for n, piece in enumerate(pieces, 1):
      yield Example((piece,), labels, f"{where} piece {n}", document or where)


def json_lines(path: pathlib.Path) -> Iterator[tuple[int, dict[str, Any]]]:
  """Yields the number and the object of each line that is not empty."""
  for number, line in enumerate(files.lines(path), 1):
    where = f"'{path}' line {number}"
    try:
      said = json.loads(line) if line.strip() else None
    except ValueError as error:
      raise DataError(f"{where} is not JSON ({error}); correct it") from error
    if said is not None and not isinstance(said, dict):
      raise DataError(f'{where} is no object; write {{"name": value, ...}}')
    if said is not None:
      yield number, said
