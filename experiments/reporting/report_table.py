"""A table of text, and its form in Markdown."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Table:
  """A titled table of text; the first column names the row.

  folds   columns that may break where space is short
  bold    (line, column) of the cells that a paper sets in bold

  >>> table = Table("scores", "Scores", ("encoding", "accuracy"), (("rope", "0.91"),))
  >>> print(to_markdown(table), end="")
  **Scores**
  <BLANKLINE>
  | encoding | accuracy |
  |---|---|
  | rope | 0.91 |
  """

  name: str
  title: str
  header: tuple[str, ...]
  rows: tuple[tuple[str, ...], ...]
  notes: tuple[str, ...] = ()
  folds: tuple[int, ...] = (0,)
  bold: frozenset[tuple[int, int]] = frozenset()


def to_markdown(table: Table) -> str:
  """Returns the title, a table of Markdown and its notes."""
  rule = "|" + "---|" * len(table.header)
  rows = [_pipes(table.header), rule, *map(_pipes, table.rows)]
  notes = [f"\n{_one_line(note)}" for note in table.notes]
  return "\n".join([f"**{table.title}**\n", *rows, *notes, ""])


def _pipes(cells: tuple[str, ...]) -> str:
  return "| " + " | ".join(map(_one_line, cells)) + " |"


def _one_line(text: str) -> str:
  return text.replace("|", "\\|").replace("\n", " ")
