"""Tagging of words. Devlin et al., 2019, section 5.3: words are cased.

https://arxiv.org/abs/1810.04805. A word's tag is predicted at its first token.
"""

import dataclasses
import pathlib
import re
from collections.abc import Iterator
from typing import Any, ClassVar

import jax.numpy as jnp

from transformer_jax.data import files
from transformer_jax.data.base import tasks
from transformer_jax.data.files import DataError
from transformer_jax.data.readers import conll, labelled_text, table_columns
from transformer_jax.data.readers.bitext import TFDS
from transformer_jax.data.readers.labelled_text import Example, ExampleFormat, Reader
from transformer_jax.data.readers.table_columns import Say
from transformer_jax.data.tasks.labelled.base import Labelled
from transformer_jax.data.tasks.labelled.classification import json_lines
from transformer_jax.data.tasks.labelled.sentence_pairs import NONE


@tasks.register("tagging")
@dataclasses.dataclass(frozen=True)
class Tagging(Labelled):
  """Tagging of the words of a sentence, by a bidirectional encoder.

  Lines of a .tsv or .conll file are a word, any other columns, and its tag, with empty
  lines between sentences; a header may come first, and -DOCSTART- starts a document, as
  in CoNLL 2003 (Tjong Kim Sang and De Meulder, https://aclanthology.org/W03-0419). Of a
  .conllu file FORM and UPOS are read (https://universaldependencies.org/format.html).
  Lines of a .jsonl file are {"words": [...], "tags": [...]}; lines of any other file
  are sentences as in `The/at jury/nn`, and a folder may hold many of those. Any file
  may be packed, as .conll.gz.

  words, tags  their names in headers, .jsonl files and TFDS data
  columns      the names of all columns of a .tsv, .conll or .conllu file in their
               order, as in 'words,pos,chunk,tags'; '': a header names them, or the
               first one is the word and the last one its tag
  coarse       a regular expression: its match at the start of a tag becomes the tag, so
               '[a-z]+' maps nn$ and nn-tl to nn; '': tags are unchanged

  The other arguments are those of `Labelled` in base.py.

  >>> import tempfile
  >>> from transformer_jax.numpy_interpreter import evaluate
  >>> with tempfile.TemporaryDirectory() as folder:
  ...   for split in "train", "test":
  ...     _ = pathlib.Path(folder, f"{split}.txt").write_text("a/at dog/nn barks/vb")
  ...   task = tasks.build(f"tagging({folder!r}, 'word(size=8)', classes=3)")
  ...   data = task.load()
  >>> batch = evaluate(lambda: task.rows(data[0], "train", jnp.array([0]), 5, 5))
  >>> data.fitted.labels, batch.target_BL.tolist(), batch.weight_BL.tolist()
  (['at', 'nn', 'vb'], [[0, 0, 1, 2, 0]], [[0.0, 1.0, 1.0, 1.0, 0.0]])
  """

  words: str = "words"
  tags: str = "tags"
  columns: str = ""
  coarse: str = ""

  def __post_init__(self):
    super().__post_init__()
    table_columns.named(self.columns, self.format.features)
    if self.columns and self.source.startswith(TFDS):
      table_columns.check_used(self.columns, self.source)
    try:
      re.compile(self.coarse)
    except re.error as error:
      raise DataError(
        f"tagging: coarse={self.coarse!r} is no pattern ({error}); write one as in"
        " '[a-z]+'"
      ) from error

  @property
  def format(self):
    return SentenceFormat(self.words, self.tags, self.columns, self.coarse)

  def asked(self, line, where):
    return Example(tuple(line.split()), (), where)

  def answered(self, example, found):
    tags = (answer[0] if answer else "_" for answer in found)
    return " ".join(f"{x}/{tag}" for x, tag in zip(example.parts, tags, strict=True))

  def targets(self, label_N, places):
    inside_BL = (places.place_BL >= 1) & ~places.end_BL
    return jnp.where(inside_BL, label_N[places.index_BL], NONE)


@dataclasses.dataclass(frozen=True)
class SentenceFormat(ExampleFormat):
  r"""File formats of tagged sentences.

  >>> import tempfile
  >>> with tempfile.TemporaryDirectory() as folder:
  ...   path = pathlib.Path(folder, "brown.txt")
  ...   _ = path.write_text("The/at-tl jury/nn\n")
  ...   example = SentenceFormat("", "", "", coarse="[a-z]+").file(path, say=print)[0]
  >>> example.parts, example.labels
  (('The', 'jury'), ('at', 'nn'))
  """

  words: str
  tags: str
  columns: str
  coarse: str

  wanted: ClassVar[str] = (
    "a data set of words with tags, or its features: words='...', tags='...'"
  )
  also: ClassVar[tuple[str, ...]] = "document", "ends"

  @property
  def features(self):
    return self.words, self.tags

  @property
  def readers(self):
    return {**self._tables, ".jsonl": self._jsonl, "": self._slashes}

  @property
  def _tables(self) -> dict[str, Reader]:
    """Readers of files of columns, by suffix."""
    return {".tsv": self._conll, ".conll": self._conll, ".conllu": self._conllu}

  def record(self, record: dict[str, Any], where: str) -> Iterator[Example]:
    """Yields the sentences of a record; `ends` holds cumulative word counts."""
    words, tags = self._lists(record, where)
    ends = [int(end) for end in record.get("ends", (len(words),))]
    document = str(record.get("document", ""))
    for n, (start, end) in enumerate(zip([0, *ends], ends, strict=False), 1):
      place = f"{where} line {n}"
      yield self._sentence(words[start:end], tags[start:end], place, document)

  def folder(self, path: pathlib.Path, say: Say) -> Iterator[Example]:
    paths = sorted(each for each in path.rglob("[!.]*") if each.is_file())
    if not paths:
      raise DataError(f"folder '{path}' holds no files; put sentences as The/at there")
    for each in paths:
      name = each.relative_to(path).as_posix().removesuffix(files.GZIP)
      yield from (dataclasses.replace(x, document=name) for x in self.file(each, say))

  def file(self, path: pathlib.Path, say: Say) -> list[Example]:
    if self.columns and files.suffix(path) not in self._tables:
      raise DataError(
        f"columns='{self.columns}' names columns of {', '.join(self._tables)} files,"
        f" and '{path}' is none; leave it out"
      )
    found = super().file(path, say)
    if not self.columns:
      self._check_exchanged(path, found)
    return found

  def _check_exchanged(self, path: pathlib.Path, found: list[Example]) -> None:
    """Raises DataError if there are more distinct tags than distinct words."""
    words = {word for example in found for word in example.parts}
    tags = {tag for example in found for tag in example.labels}
    if len(tags) > len(words):
      raise DataError(
        f"'{path}' has {len(tags)} different tags and {len(words)} different words: are"
        f" its columns exchanged? Write columns='{','.join(self.features)}' with the"
        " names of all columns in their order"
      )

  def _conll(self, path: pathlib.Path, say: Say) -> Iterator[Example]:
    named = table_columns.named(self.columns, self.features)
    yield from self._in_columns(path, conll.conll(path, self.features, named, say))

  def _conllu(self, path: pathlib.Path, say: Say) -> Iterator[Example]:
    named = table_columns.named(self.columns, self.features)
    yield from self._in_columns(path, conll.conllu(path, self.features, named))

  def _in_columns(
    self, path: pathlib.Path, sentences: Iterator[conll.Sentence]
  ) -> Iterator[Example]:
    for x in sentences:
      where = f"'{path}' line {x.number}"
      yield self._sentence(x.words, x.tags, where, x.document)

  def _jsonl(self, path: pathlib.Path, say: Say) -> Iterator[Example]:
    for number, said in json_lines(path):
      where = f"'{path}' line {number}"
      words, tags = self._lists(said, where)
      yield self._sentence(words, tags, where, str(said.get("document", "")))

  def _lists(self, said: dict[str, Any], where: str) -> list[list[str]]:
    """Returns words and tags of a line or a record."""
    for name in self.features:
      if not isinstance(said.get(name), list):
        raise DataError(f"{where} has no list '{name}'; each needs words and tags")
    return [[labelled_text.text(x, n, where) for x in said[n]] for n in self.features]

  def _slashes(self, path: pathlib.Path, say: Say) -> Iterator[Example]:
    for number, line in enumerate(files.lines(path), 1):
      where = f"'{path}' line {number}"
      words: list[str] = []
      tags: list[str] = []
      for each in line.split():
        word, slash, tag = each.rpartition("/")  # a word may hold a slash
        if not (word and slash and tag):
          raise DataError(
            f"{where} has '{each}', which is no word with a tag; write it as in The/at"
          )
        words, tags = [*words, word], [*tags, tag]
      if words:
        yield self._sentence(words, tags, where)

  def _sentence(self, words: Any, tags: Any, where: str, document: str = "") -> Example:
    if len(words) != len(tags):
      raise DataError(
        f"{where} has {len(words)} words and {len(tags)} tags; give each word one"
      )
    labels = tuple(labelled_text.label(self._coarse(tag), where) for tag in tags)
    return Example(tuple(words), labels, where, document)

  def _coarse(self, tag: str) -> str:
    found = re.match(self.coarse, tag) if self.coarse else None
    return found[0] if found and found[0] else tag
