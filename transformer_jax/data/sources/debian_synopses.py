"""Descriptions of Debian packages and their one-line synopses: text and summary."""

import dataclasses
from typing import ClassVar

from transformer_jax.data.sources.base import Plain, sources
from transformer_jax.data.sources.debian_descriptions import paragraphs, read
from transformer_jax.data.sources.packages import Descriptions


@sources.register("debian_synopses")
@dataclasses.dataclass(frozen=True)
class DebianSynopses(Plain):
  """First paragraph of each package's English description, and its synopsis.

  Packages whose names begin alike, such as libfoo1 and libfoo1-dev, are one document,
  and a text comes once: packages of one family share theirs.

  >>> list(DebianSynopses().features())
  ['document', 'text', 'summary']
  """

  licence: ClassVar[str] = "that of each package, all of them free software"
  homepage: ClassVar[str] = "https://www.debian.org/distrib/packages"
  description: ClassVar[str] = "Descriptions of Debian packages and their synopses."
  example: ClassVar[str] = "debian_synopses"
  task: ClassVar[str] = "summary"

  def fetcher(self):
    return Descriptions(("en",))

  def features(self):
    return super().features() | {"summary": str}

  def examples(self, paths):
    known = set()
    for package, lines in read(paths[0], "en").values():
      summary, *text = paragraphs(lines)
      if text and text[0] not in known:
        known.add(text[0])
        family = package.partition("-")[0]
        yield {"document": family, "text": text[0], "summary": summary}
