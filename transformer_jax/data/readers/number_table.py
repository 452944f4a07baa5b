"""Reader of CSV tables with numbers, which are checked one by one. No JAX here."""

import csv
import dataclasses
import math
import pathlib
from typing import Any

import numpy as np

from transformer_jax import untrusted
from transformer_jax.data.files import DataError, check_utf8, unzipped
from transformer_jax.data.sources import sources, table_build
from transformer_jax.data.sources.base import TableSource, named
from transformer_jax.spec import nearest


@dataclasses.dataclass(frozen=True, eq=False)
class NumberTable:
  """The cells of a CSV file by column.

  where    path of the file, for messages
  columns  {name: cells}
  lines    line of the file of each row

  >>> table = parse("day,sales\\n1,2.5\\n2,\\n", "shop.csv")
  >>> table.numbers("day").tolist()
  [1.0, 2.0]
  >>> try:
  ...   table.numbers("sales")
  ... except DataError as error:
  ...   print(error)
  'shop.csv' line 3 has no number in column 'sales' but ''; fill it in, or cut the table
  """

  where: str
  columns: dict[str, list[str]]
  lines: list[int]

  def column(self, name: str) -> list[str]:
    """Returns the cells of a column. Raises DataError without it."""
    if name not in self.columns:
      raise DataError(
        f"'{self.where}' has no column '{name}'.{nearest(name, self.columns)} Its"
        f" columns are {', '.join(self.columns)}."
      )
    return self.columns[name]

  def numbers(self, name: str) -> np.ndarray:
    """Returns a column as float64. Raises DataError for text, NaN or infinity."""
    found = []
    for line, cell in zip(self.lines, self.column(name), strict=True):
      try:
        found.append(float(cell))
      except ValueError:
        found.append(math.nan)
      if not math.isfinite(found[-1]):
        raise DataError(
          f"'{self.where}' line {line} has no number in column '{name}' but"
          f" {cell!r:.40}; fill it in, or cut the table"
        )
    return np.array(found)


def parse(text: str, where: str) -> NumberTable:
  """Returns the table of a CSV text whose first line names the columns."""
  reader = csv.reader(text.splitlines())
  try:
    names = next(reader, [])
    rows = [(reader.line_num, row) for row in reader if row]
  except csv.Error as error:
    raise DataError(f"'{where}' line {reader.line_num} is not CSV: {error}") from error
  if not rows:
    raise DataError(f"'{where}' holds no line of numbers after its header; give some")
  if len({*names}) < len(names) or any(_is_number(name) for name in names):
    raise DataError(
      f"the first line of '{where}' names no columns but {', '.join(names)[:60]!r};"
      " write different names, as in day,sales"
    )
  for line, row in rows:
    if len(row) != len(names):
      raise DataError(
        f"'{where}' line {line} has {len(row)} fields and the first line"
        f" {len(names)}; write the same number in each"
      )
  cells = zip(*(row for _, row in rows), strict=True)
  columns = {name: list(each) for name, each in zip(names, cells, strict=True)}
  return NumberTable(where, columns, [line for line, _ in rows])


def read(path: pathlib.Path) -> NumberTable:
  """Returns the table of a .csv or .csv.gz file. Raises DataError."""
  try:
    content = unzipped(untrusted.content(path), str(path))
  except OSError as error:
    raise DataError(
      f"cannot read '{path}': {error.strerror}; check the path"
    ) from error
  check_utf8(content, f"'{path}'")
  return parse(content.decode("utf-8-sig"), str(path))


def located(
  source: str, task: str, data_dir: str | None
) -> tuple[pathlib.Path, dict[str, Any]]:
  """Returns the file or folder of a source, and facts.

  source     a path, or the name of a source, which must be prepared
  task       that reads it
  data_dir   folder of prepared data; None: TFDS's default

  Raises DataError.
  """
  if not isinstance(named(source), TableSource):
    path = pathlib.Path(source).expanduser()
    if not path.exists():
      known = [n for n, kind in sources.items() if getattr(kind, "task", "") == task]
      raise DataError(
        f"{task}: there is no '{source}'; check the path, or write"
        f" {' or '.join(map(repr, known))}, which is prepared from a package"
      )
    return path, {"source": source}
  folder, about = table_build.prepared(source, data_dir)
  return folder, {"source": source, **about}


def _is_number(text: str) -> bool:
  try:
    return math.isfinite(float(text))
  except ValueError:
    return False
