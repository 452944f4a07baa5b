"""Generated docs pages: encodings, variants, families, and the cores that serve them.

  python -m experiments.catalogue            write them
  python -m experiments.catalogue --check    list stale pages; writes nothing

Only the sentences around the tables are written by hand: names come from registries,
papers from docstrings of files, the rest from declarations of the objects and from the
compatibility table that models check before they are built. Pictures are drawn from the
hooks of encodings and variants. The check takes seconds, as it only tests that each
picture exists; a slow test compares their numbers.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.catalogue import counts, encodings, families, pictures, variants
from transformer_jax.attention import Mixer, attentions
from transformer_jax.positions import positions

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
  for thing in shown():
    draw(thing)
  return 0


def check(texts: dict[str, str]) -> int:
  """Returns 1 if a page is stale, and prints the command that updates it."""
  files = {DOCS / name: text for name, text in texts.items()}
  stale = [
    path
    for path, text in files.items()
    if not path.exists() or path.read_text("utf-8") != text
  ]
  stale += [path for path in map(pictures.path, shown()) if not path.exists()]
  if stale:
    print(
      f"{', '.join(map(relative, stale))}: not what the code says now; write what"
      " it says with python -m experiments.catalogue",
      file=sys.stderr,
    )
  return bool(stale)


def relative(path: Path) -> str:
  """Returns a file's path in the project."""
  return os.path.relpath(path, DOCS.parent)


def shown() -> list[Any]:
  """Returns all encodings and variants; each has a picture."""
  every = [registry.build(n) for registry in (positions, attentions) for n in registry]
  return [thing for thing in every if not isinstance(thing, Mixer)]


def draw(thing: Any) -> None:
  """Draws the picture of an encoding or a variant if its numbers have changed."""
  path, plotted = pictures.path(thing), pictures.arrays(thing)
  if pictures.is_stale(path, plotted):
    pictures.draw(path, plotted)
    print(f"wrote {path}")


def pages() -> dict[str, str]:
  """Returns the pages as Markdown, by the names of their files."""
  return {
    "positions.md": encodings.page(),
    "attention.md": variants.page(),
    "interop.md": families.page(),
    "../README.md": counts.page(),
  }
