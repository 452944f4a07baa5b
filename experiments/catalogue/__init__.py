"""Writes the pages of docs that list all there is, and where it works.

  python -m experiments.catalogue            write them
  python -m experiments.catalogue --check    say which of them are stale; writes nothing

Nothing there is written by hand but the sentences around the tables: names come from
registries, papers from docstrings of files, the rest from what the objects declare
and from the table that models ask before they are built.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.catalogue import counts, encodings, families, variants

DOCS = Path(__file__).parents[2] / "docs"


def main(arguments: Sequence[str] = ()) -> int:
  """Writes the pages, or checks them; returns the exit code."""
  if arguments == ["--check"]:
    return check(pages())
  if arguments:
    print("usage: python -m experiments.catalogue [--check]", file=sys.stderr)
    return 2
  for name, text in pages().items():
    (DOCS / name).write_text(text, encoding="utf-8")
    print(f"wrote {DOCS / name}")
  return 0


def check(texts: dict[str, str]) -> int:
  """Returns 1 where a page is not what it would be written as, and says how to mend."""
  files = {name: DOCS / name for name in texts}
  stale = [
    str(path.resolve().relative_to(DOCS.parent))
    for name, path in files.items()
    if not path.exists() or path.read_text("utf-8") != texts[name]
  ]
  if stale:
    print(
      f"{', '.join(stale)}: not what the code says now; write what it says with"
      " python -m experiments.catalogue",
      file=sys.stderr,
    )
  return bool(stale)


def pages() -> dict[str, str]:
  """Returns the pages as Markdown, by the names of their files."""
  return {
    "positions.md": encodings.page(),
    "attention.md": variants.page(),
    "interop.md": families.page(),
    "../README.md": counts.page(),
  }
