"""Columns of .tsv and .csv files, by header, by `columns=` or by position.

A wrong guess about a first line would lose an example, or train on a header. So only
known names make a header, a note reports the decision, and `columns=` overrides it.
"""

import csv
import dataclasses
import io
import pathlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from transformer_jax.data import files
from transformer_jax.data.files import DataError

DOCUMENT = "document"
# Header names of columns besides the needed ones.
OTHERS = {"", "#", "id", "idx", "index", "guid", "uid", "row", "split", "title", "url"}
OTHERS |= {"date", "author", "score", "source_id", "document", "doc", "doc_id"}
SEPARATORS = {".tsv": "\t", ".csv": ","}
SHOWN = {"\t": " TAB ", ",": ","}

Row = tuple[int, list[str]]  # the number of a line and its fields, none if blank
Say = Callable[[str], None]  # callback for notes to the user


@dataclasses.dataclass(frozen=True)
class TableRow:
  r"""One line: the needed fields in their order, none if it is blank.

  >>> import tempfile
  >>> words = {"de": frozenset({"de"}), "en": frozenset({"en"})}
  >>> with tempfile.TemporaryDirectory() as folder:
  ...   path = pathlib.Path(folder, "train.tsv")
  ...   _ = path.write_text("document\ten\tde\npets\ta dog\tein Hund\n")
  ...   [row] = Columns(("de", "en"), words).read(path, say=list)
  >>> row
  TableRow(number=2, fields=('ein Hund', 'a dog'), document='pets')
  """

  number: int
  fields: tuple[str, ...] = ()
  document: str = ""


@dataclasses.dataclass(frozen=True)
class TableColumns:
  """Column layout of one file.

  places    indices of the needed columns
  document  index of the document's name, or None
  sizes     allowed numbers of fields of a line
  header    whether the first line is a header

  >>> layout = TableColumns(places=(2, 1), document=None, sizes=(3,), header=True)
  >>> layout.record((7, ["id 1", "ein Hund", "a dog"])).fields
  ('a dog', 'ein Hund')
  """

  places: tuple[int, ...]
  document: int | None
  sizes: tuple[int, ...]
  header: bool

  def record(self, row: Row) -> TableRow:
    """Returns the record of a line that has fields."""
    number, fields = row
    place = self.document
    document = fields[place] if place is not None and place < len(fields) else ""
    return TableRow(number, tuple(fields[n] for n in self.places), document)


@dataclasses.dataclass(frozen=True)
class Columns:
  r"""Required columns of a file.

  needed  their names, in the order of a file without a header
  words   header names of each of them, in lower case
  named   the user's names of all columns of the file in order; (): not given
  hint    the arguments with which a user names the needed columns, for messages
  others  header names of other columns, for messages
  spell   normalizes header names before they are compared

  >>> import tempfile
  >>> words = {"de": frozenset({"de"}), "en": frozenset({"en"})}
  >>> with tempfile.TemporaryDirectory() as folder:
  ...   path = pathlib.Path(folder, "train.tsv")
  ...   _ = path.write_text("id\ten\tde\n1\ta dog\tein Hund\n")
  ...   rows = list(Columns(("de", "en"), words).read(path, say=list))
  >>> rows[0].number, rows[0].fields
  (2, ('ein Hund', 'a dog'))
  """

  needed: tuple[str, ...]
  words: Mapping[str, frozenset[str]]
  named: tuple[str, ...] = ()
  hint: str = ""
  others: frozenset[str] = frozenset()
  spell: Callable[[str], str] = lambda word: word.strip().lower()

  def read(self, path: pathlib.Path, say: Say) -> Iterator[TableRow]:
    """Yields the lines of a file without its header. Raises DataError."""
    between = SEPARATORS[files.suffix(path)]
    rows = [*_rows(path, between)]
    first = next((n for n, (_, fields) in enumerate(rows) if fields), None)
    if first is None:
      return
    layout = self._layout(path, rows[first:], say)
    for n, row in enumerate(rows):
      number, fields = row
      if not fields:
        yield TableRow(number)
      elif n > first or not layout.header:
        self._check_size(f"'{path}' line {number}", len(fields), layout, between)
        yield layout.record(row)

  def _layout(self, path: pathlib.Path, rows: list[Row], say: Say) -> TableColumns:
    """Returns the column layout, by the first line. Raises DataError."""
    number, fields = rows[0]
    fields, where = [field.strip() for field in fields], f"'{path}' line {number}"
    if self.named:
      header = self._repeats_names(fields)
      if header:
        shown = ", ".join(fields)
        say(f"{where} ({shown}) is a header, left out; columns= names the columns")
      return _layout([self.named.index(x) for x in self.needed], self.named, header)
    if self._is_header(fields):
      return self._by_header(where, fields, say)
    self._check_no_header(where, fields, rows)
    need = len(self.needed)
    return TableColumns(tuple(range(need)), need, (need, need + 1), header=False)

  def _by_header(self, where: str, fields: list[str], say: Say) -> TableColumns:
    """Returns the column layout of a header. Raises DataError if it is ambiguous."""
    places = []
    for name in self.needed:
      found = self._found(name, fields)
      if len(found) != 1:
        what = f"{len(found)} columns for '{name}'" if found else f"no '{name}'"
        raise DataError(
          f"{where} is a header ({', '.join(fields)}) with {what}; write {self.hint} as"
          f" it says, or columns='...' with the names of all columns,"
          f" {' and '.join(self.needed)} among them"
        )
      places += found
    called = (f"{x} is '{fields[n]}'" for x, n in zip(self.needed, places, strict=True))
    layout = _layout(places, [*map(self.spell, fields)], header=True)
    unused = {*range(len(fields))} - {*places, layout.document}
    rest = f"; not used: {', '.join(fields[n] for n in sorted(unused))}"
    say(f"{where} is a header: {', '.join(called)}{rest if unused else ''}")
    return layout

  def _found(self, name: str, fields: list[str]) -> list[int]:
    """Returns the indices of columns with this name or else one of its synonyms."""
    spelled, words = [*map(self.spell, fields)], self.words.get(name, frozenset())
    own = [n for n, word in enumerate(spelled) if word == self.spell(name)]
    return own or [n for n, word in enumerate(spelled) if word in words]

  def _is_header(self, fields: list[str]) -> bool:
    """Returns whether a line names all needed columns, or has only known names."""
    spelled = {*map(self.spell, fields)}
    if not 1 < len(fields) == len(spelled):
      return False
    known = self._words | OTHERS | self.others
    return all(self._found(x, fields) for x in self.needed) or spelled <= known

  def _repeats_names(self, fields: list[str]) -> bool:
    """Returns whether a line repeats the user's column names, or is a header."""
    known = {*map(self.spell, self.named)} | self._words | OTHERS
    return {*map(self.spell, fields)} <= known or all(
      self._found(x, fields) for x in self.needed
    )

  @property
  def _words(self) -> frozenset[str]:
    """All header names of the needed columns."""
    return frozenset(map(self.spell, self.needed)).union(*self.words.values())

  def _check_no_header(self, where: str, first: list[str], rows: list[Row]) -> None:
    """Raises DataError if the first line has some header names."""
    for place, field in enumerate(first):
      column = Counter(row[place].strip() for _, row in rows if place < len(row))
      if self.spell(field) in self._words and column[field] == 1 and len(rows) > 1:
        raise DataError(
          f"{where} ({', '.join(first)}) may be a header or an example; if it is a"
          f" header, write {self.hint} as it says, and if it is an example,"
          f" columns='{','.join(self.needed)}'"
        )

  def _check_size(
    self, where: str, size: int, layout: TableColumns, between: str
  ) -> None:
    if size in layout.sizes:
      return
    if len(layout.sizes) == 1:  # its columns have names
      raise DataError(
        f"{where} has {size} of the {layout.sizes[0]} fields that the file has columns;"
        " complete it"
      )
    sizes, join = " or ".join(map(str, layout.sizes)), SHOWN[between]
    raise DataError(
      f"{where} has {size} of the {sizes} fields it needs: {join.join(self.needed)},"
      f" and{join if join.strip(',') else ' '}{DOCUMENT} if you like; complete it"
    )


def named(columns: str, needed: tuple[str, ...]) -> tuple[str, ...]:
  """Returns the names in `columns=`, () if it is ''. Raises DataError."""
  names = tuple(name.strip() for name in columns.split(",")) if columns.strip() else ()
  missing = [name for name in needed if names.count(name) != 1]
  if names and missing:
    raise DataError(
      f"columns='{columns}' must name '{missing[0]}' once; write the names of all"
      f" columns of the file in their order, as in columns='{','.join(needed)}'"
    )
  return names


def check_used(columns: str, source: str) -> None:
  """Raises DataError if `columns=` is given for a source without columns."""
  if columns and files.suffix(pathlib.Path(source)) not in SEPARATORS:
    raise DataError(
      f"columns='{columns}' names columns of .tsv and .csv files, and '{source}' is"
      " none; leave it out, and name fields by their own arguments"
    )


def _layout(places: list[int], names: list[str] | tuple[str, ...], header: bool):
  """Returns the layout of named columns."""
  document = names.index(DOCUMENT) if DOCUMENT in names else None
  return TableColumns(tuple(places), document, (len(names),), header)


def _rows(path: pathlib.Path, between: str) -> Iterator[Row]:
  """Yields the number and the fields of each line; blank lines have no fields."""
  lines = files.lines(path)
  if between == "\t":
    for number, line in enumerate(lines, 1):
      yield number, line.split("\t") if line.strip() else []
    return
  csv.field_size_limit(2**31 - 1)  # texts may be long
  reader, before = csv.reader(io.StringIO("\n".join(lines)), strict=True), 0
  try:
    for fields in reader:
      yield before + 1, fields if any(field.strip() for field in fields) else []
      before = reader.line_num
  except csv.Error as error:
    raise DataError(
      f"'{path}' line {before + 1} is not CSV ({error}); put a field with commas,"
      ' quotes or newlines in "quotes", and write a quote inside it twice'
    ) from error
