"""Writes the pages of docs that list all there is, and where it works.

  python -m experiments.catalogue

Nothing there is written by hand but the sentences around the tables: names come from
registries, papers from docstrings of files, the rest from what the objects declare
and from the table that models ask before they are built.
"""

from pathlib import Path

from experiments.catalogue import counts, encodings, families, variants

DOCS = Path(__file__).parents[2] / "docs"


def main() -> int:
  """Writes the pages."""
  for name, text in pages().items():
    (DOCS / name).write_text(text, encoding="utf-8")
    print(f"wrote {DOCS / name}")
  return 0


def pages() -> dict[str, str]:
  """Returns the pages as Markdown, by the names of their files."""
  return {
    "positions.md": encodings.page(),
    "attention.md": variants.page(),
    "interop.md": families.page(),
    "../README.md": counts.page(),
  }
