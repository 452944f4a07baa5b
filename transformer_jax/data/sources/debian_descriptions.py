"""Descriptions of Debian packages, with their translations."""

import dataclasses
import pathlib
from typing import ClassVar

from transformer_jax.data.files import DataError, lines
from transformer_jax.data.sources import sentences
from transformer_jax.data.sources.base import Translated, sources
from transformer_jax.data.sources.packages import Descriptions

BULLETS = ("* ", "- ", "o ", "+ ")
UNTRANSLATED = "<trans>"


@sources.register("debian_descriptions")
@dataclasses.dataclass(frozen=True)
class DebianDescriptions(Translated):
  """Sentences of descriptions that exist in both languages, split by package.

  >>> source = DebianDescriptions("de-en")
  >>> source.languages, list(source.features())
  (('de', 'en'), ['document', 'de', 'en'])
  """

  licence: ClassVar[str] = "that of each package, all of them free software"
  homepage: ClassVar[str] = "https://www.debian.org/international/l10n/ddtp"
  description: ClassVar[str] = "Sentences of package descriptions in two languages."
  example: ClassVar[str] = "debian_descriptions/de-en"

  def fetcher(self):
    return Descriptions(self.languages)

  def examples(self, paths):
    first, second = self.languages
    other, one = (read(path, x) for path, x in zip(paths, self.languages, strict=True))
    for text, translation, package in sentences.pairs(_paragraphs(one, other)):
      yield {first: translation, second: text, "document": package}


def _paragraphs(one, other):
  """Yields paragraphs of the same version of a description, if there are as many."""
  for mark, (package, translated) in other.items():
    a, b = paragraphs(one[mark][1]) if mark in one else [], paragraphs(translated)
    if len(a) == len(b):
      yield from (
        (x, y, package) for x, y in zip(a, b, strict=True) if UNTRANSLATED not in y
      )


def read(path: pathlib.Path, language: str) -> dict[str, tuple[str, list[str]]]:
  """Returns (package, lines) of each description by the MD5 of the English one."""
  found: dict[str, tuple[str, list[str]]] = {}
  record: dict[str, list[str]] = {}
  for line in [*lines(path), ""]:
    if line.startswith(" ") and record:
      record[next(reversed(record))].append(line[1:])
    elif line.strip():
      key, _, value = line.partition(": ")
      record[key] = [value]
    elif record:
      text = record.get(f"Description-{language}")
      if text and "Description-md5" in record and "Package" in record:
        found[record["Description-md5"][0]] = record["Package"][0], text
      record = {}
  if not found:
    raise DataError(
      f"'{path}' holds no descriptions in '{language}'; delete it and run this again"
    )
  return found


def paragraphs(lines: list[str]) -> list[str]:
  """Returns the title and the paragraphs; an item of a list is a paragraph.

  A line of one dot stands between paragraphs.
  """
  found, new = lines[:1], True
  for line in lines[1:]:
    text = line.strip()
    item = line.startswith(" ") and text.startswith(BULLETS)
    if text == ".":
      new = True
    elif new or item:
      found.append(text[2:] if item else text)
      new = False
    else:
      found[-1] += f" {text}"
  return found
