"""Base class of data-set sources: metadata, packages, and the split of a document."""

import dataclasses
import hashlib
import pathlib
import re
from collections.abc import Iterator
from typing import Any, ClassVar

from transformer_jax.data.files import DataError
from transformer_jax.data.sources.packages import LANGUAGE, Fetcher
from transformer_jax.spec import Registry


@dataclasses.dataclass(frozen=True)
class Source:
  """Base class of data sets built from packages.

  config    the part of its name after the slash, as in libreoffice_help/de-en
  licence   of the data
  example   a valid name, for messages
  task      that reads it

  >>> import transformer_jax.data.sources
  >>> list(sources)  # doctest: +NORMALIZE_WHITESPACE
  ['brown', 'debian_descriptions', 'debian_synopses', 'japanese_vowels',
   'libreoffice_help', 'sotu', 'us_births']
  >>> named("libreoffice_help/de-en").licence
  'MPL-2.0'
  """

  config: str = ""

  licence: ClassVar[str]
  homepage: ClassVar[str]
  description: ClassVar[str]
  example: ClassVar[str]
  task: ClassVar[str] = "text"

  def fetcher(self) -> Fetcher:
    """Fetcher of the packages."""
    raise NotImplementedError

  def features(self) -> dict[str, Any]:
    """Returns the kind of each feature: str, or a list of one."""
    raise NotImplementedError

  def examples(self, paths: list[pathlib.Path]) -> Iterator[dict[str, Any]]:
    """Yields examples from the fetched files; each names its `document`."""
    raise NotImplementedError


sources = Registry("source", Source)


class Plain(Source):
  """A data set with one form only.

  >>> named("sotu").features()
  {'document': <class 'str'>, 'text': <class 'str'>}
  """

  def __post_init__(self):
    if self.config:
      raise DataError(f"'{self.example}' has one form only; leave out '/{self.config}'")

  def features(self):
    return {"document": str, "text": str}


class TableSource(Source):
  """Tables of numbers with one form only, which are written as CSV files.

  >>> named("us_births").task
  'time_series'
  """

  def __post_init__(self):
    if self.config:
      raise DataError(f"'{self.example}' has one form only; leave out '/{self.config}'")

  def tables(self, paths: list[pathlib.Path]) -> dict[str, str]:
    """Returns {file name: CSV text} from the fetched files."""
    raise NotImplementedError


class Translated(Source):
  """Pairs of sentences; the config names two languages, as in de-en.

  >>> named("libreoffice_help/de-en").languages
  ('de', 'en')
  """

  task: ClassVar[str] = "translation"

  def __post_init__(self):
    if len({*self.languages} - {""}) != 2:
      raise DataError(
        f"'{self.example}' needs two languages after the slash, not '{self.config}'"
      )
    for language in self.languages:
      if not re.fullmatch(LANGUAGE, language):
        raise DataError(
          f"{language!r:.80} is no code of a language; write one such as de, pt_BR or"
          f" en-gb, as in '{self.example}'"
        )

  @property
  def languages(self) -> tuple[str, str]:
    """Returns ('de', 'en') of 'de-en'."""
    first, _, second = self.config.partition("-")
    return first, second

  def features(self):
    return {"document": str} | dict.fromkeys(self.languages, str)


def named(name: str) -> Source | None:
  """Returns the source named `brown` or `libreoffice_help/de-en`, or None."""
  base, _, config = name.partition("/")
  return sources[base](config) if base in sources else None


def split_of(document: str) -> str:
  """Returns the split of a document by a hash of its name: 94%, 3% and 3%."""
  hundredth = int(hashlib.sha256(document.encode()).hexdigest(), 16) % 100
  return "test" if hundredth < 3 else "validation" if hundredth < 6 else "train"
