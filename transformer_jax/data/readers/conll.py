"""Reader of sentences in columns, one word per line: CoNLL 2003, CoNLL-U.

https://aclanthology.org/W03-0419; https://universaldependencies.org/format.html
"""

import dataclasses
import itertools
import pathlib
from collections.abc import Iterator, Sequence

from transformer_jax.data import files
from transformer_jax.data.files import DataError
from transformer_jax.data.readers.table_columns import Say

START = "-DOCSTART-"  # replaces the word at the start of a document
CONLLU = (
  "id",
  "form",
  "lemma",
  "upos",
  "xpos",
  "feats",
  "head",
  "deprel",
  "deps",
  "misc",
)
WORDS = {"word", "words", "token", "tokens", "form"}
TAGS = {"tag", "tags", "pos", "upos", "xpos", "ner", "ner_tag", "ner_tags", "label"}

Row = tuple[int, list[str]]  # the number of a line and its fields, none if blank


@dataclasses.dataclass(frozen=True)
class Sentence:
  r"""Tagged sentence: words and their tags.

  number    line number of the first word
  document  its document in the file, or "" if the file names none

  >>> import tempfile
  >>> with tempfile.TemporaryDirectory() as folder:
  ...   path = pathlib.Path(folder, "train.conll")
  ...   _ = path.write_text("The DT\ndog NN\n\nYes UH\n")
  ...   found = list(conll(path, ("words", "tags"), named=(), say=print))
  >>> [(each.number, each.words, each.tags) for each in found]
  [(1, ('The', 'dog'), ('DT', 'NN')), (4, ('Yes',), ('UH',))]
  """

  number: int
  words: tuple[str, ...]
  tags: tuple[str, ...]
  document: str = ""


def conll(
  path: pathlib.Path, wanted: tuple[str, str], named: Sequence[str], say: Say
) -> Iterator[Sentence]:
  """Yields sentences of columns between tabs, or between spaces if there is no tab.

  wanted  names of the columns of words and of tags
  named   the user's names of all columns; (): the header, or first and last

  Raises DataError for lines with another number of columns than the first one.
  """
  rows = _rows(path)
  first = next((row for row in rows if row[1] and row[1] != [START]), None)
  if first is None:
    return
  number, names = first[0], _header(path, first, rows, named)
  if names:
    rows = [row for row in rows if row is not first]
    say(f"'{path}' line {number} is a header: {', '.join(names)}")
  columns = [*(named or names)]
  size = len(columns or first[1])
  for number, fields in rows:
    if fields and fields != [START] and (len(fields) != size or size < 2):
      few = "a word without a tag" if len(fields) < 2 else f"{len(fields)} columns"
      raise DataError(
        f"'{path}' line {number} has {few}; write word TAB tag, as many columns on each"
        " line as on the first, and an empty line between sentences"
      )
  places = _place(wanted[0], columns, WORDS, 0), _place(wanted[1], columns, (), -1)
  yield from _sentences(path, rows, places)


def conllu(
  path: pathlib.Path, wanted: tuple[str, str], named: Sequence[str]
) -> Iterator[Sentence]:
  """Yields sentences of a CoNLL-U file: FORM and UPOS unless `wanted` names others.

  Ranges (1-2) and empty nodes (1.1) are no words. Raises DataError.
  """
  names = [*named] or [*CONLLU]
  word, tag = wanted
  places = (
    names.index(word if word in names else "form"),
    names.index(tag if tag in names else "upos"),
  )
  rows = []
  for number, line in enumerate(files.lines(path), 1):
    fields = [field.strip() for field in line.split("\t")] if line.strip() else []
    if line.startswith("#"):
      if line[1:].strip().startswith("newdoc"):
        rows.append((number, [START]))
      continue
    if fields and len(fields) != len(names):
      raise DataError(
        f"'{path}' line {number} has {len(fields)} of the {len(names)} columns of"
        " CoNLL-U, between tabs; complete it"
      )
    if not fields or fields[0].isdigit():
      rows.append((number, fields))
  yield from _sentences(path, rows, places)


def _rows(path: pathlib.Path) -> list[Row]:
  lines = files.lines(path)
  tabs = "\t" in next((line for line in lines if line.strip()), "")

  def cut(line):
    return [x.strip() for x in line.split("\t")] if tabs else line.split()

  rows = [(n, cut(x) if x.strip() else []) for n, x in enumerate(lines, 1)]
  # Some write `-DOCSTART-` alone on its line.
  return [(n, [START] if fields[:1] == [START] else fields) for n, fields in rows]


def _header(
  path: pathlib.Path, first: Row, rows: list[Row], named: Sequence[str]
) -> list[str]:
  """Returns the names in the first line, [] if it is a word. Raises DataError."""
  names = [field.lower() for field in first[1]]
  if names == [name.lower() for name in named]:
    return names
  if len(names) > 1 and names[0] in WORDS and names[-1] in TAGS:
    return names
  if named:
    return []
  tags = [fields[-1] for _, fields in rows if fields]
  if names[-1] in TAGS and len(tags) > 1 and tags.count(first[1][-1]) == 1:
    raise DataError(
      f"'{path}' line {first[0]} ({' '.join(first[1])}) may be a header or a word;"
      " write columns='words,tags' with the names of all columns, and take a header out"
    )
  return []


def _place(
  name: str, columns: list[str], words: Sequence[str] | set, usual: int
) -> int:
  """Returns the place of the column of this name, or of the usual one."""
  if name in columns:
    return columns.index(name)
  return next((n for n, column in enumerate(columns) if column in words), usual)


def _sentences(
  path: pathlib.Path, rows: list[Row], places: tuple[int, int]
) -> Iterator[Sentence]:
  """Yields the lines of each sentence; START counts the documents."""
  document = 0
  word, tag = places
  for (kind, started), some in itertools.groupby(rows, _kind):
    if started:
      document += 1
    if kind == "words":
      sentence = [*some]
      words, tags = (tuple(x[1][n] for x in sentence) for n in (word, tag))
      name = f"{path.name} document {document}" if document else ""
      yield Sentence(sentence[0][0], words, tags, name)


def _kind(row: Row) -> tuple[str, int]:
  number, fields = row
  if fields[:1] == [START]:
    return "start", number
  return "words" if fields else "blank", 0
