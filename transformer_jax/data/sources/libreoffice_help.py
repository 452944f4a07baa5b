"""LibreOffice help pages in about 35 languages, aligned by block."""

import dataclasses
import html.parser
import itertools
import pathlib
from typing import ClassVar

from transformer_jax.data.sources import archives, sentences
from transformer_jax.data.sources.base import Translated, sources
from transformer_jax.data.sources.packages import Debian

FOLDER = "usr/share/libreoffice/help/"
BLOCKS = ("p", "h1", "h2", "h3", "h4", "h5", "h6")
KINDS = ("par_id", "hd_id", "tit")  # how ids of translated blocks start
FOOT = '<div id="DonationFrame"'  # the same on every page, in one language
MUTE = ("script", "style")
PACKAGE = {"en": "en-us"}


@sources.register("libreoffice_help")
@dataclasses.dataclass(frozen=True)
class LibreOfficeHelp(Translated):
  """Sentences of pages that exist in both languages; a page is in one split only.

  >>> source = LibreOfficeHelp("de-en")
  >>> source.fetcher().wanted
  ('libreoffice-help-de', 'libreoffice-help-en-us')
  >>> blocks("<p id='par_id1'>Choose a <span>font</span>.</p>")
  {('par_id1', 0): 'Choose a font.'}
  """

  licence: ClassVar[str] = "MPL-2.0"
  homepage: ClassVar[str] = "https://help.libreoffice.org"
  description: ClassVar[str] = "Sentences of LibreOffice's help in two languages."
  example: ClassVar[str] = "libreoffice_help/de-en"

  def fetcher(self):
    codes = (PACKAGE.get(x, x).replace("_", "-") for x in self.languages)
    return Debian(tuple(f"libreoffice-help-{code}" for code in codes))

  def examples(self, paths):
    first, second = self.languages
    other, one = (dict(_pages(path)) for path in paths)
    # Pages of a folder before those of folders in it: the first page keeps a sentence.
    shared = sorted(
      (x for x in one if x in other), key=lambda x: x.rpartition("/")[::2]
    )
    matched = ((blocks(one[name]), blocks(other[name]), name) for name in shared)
    paragraphs = (
      (text, b[block], name) for a, b, name in matched for block, text in a.items()
      if block in b
    )  # fmt: skip
    for text, translation, page in sentences.pairs(paragraphs):
      yield {first: translation, second: text, "document": page}


def _pages(path: pathlib.Path):
  """Yields (name, HTML) of the pages; names are the same in all languages."""
  for name, page in archives.texts(path, FOLDER, ".html"):
    language, _, rest = name.removeprefix(FOLDER).partition("/")
    if language and rest.startswith("text/"):
      yield rest, page


def blocks(page: str) -> dict[tuple[str, int], str]:
  """Returns the texts of a page by id; the n-th block with an id has number n."""
  parser = _Blocks()
  parser.feed(page.partition(FOOT)[0])
  parser.close()
  parser.end()
  return parser.found


class _Blocks(html.parser.HTMLParser):
  """Parser of headings and paragraphs, without code.

  A span of class switchinline holds one phrase in variants, for Mac and for others: one
  of them is read.
  """

  def __init__(self):
    super().__init__(convert_charrefs=True)
    self.found, self.counts = {}, {}
    self.block, self.mute = None, 0
    self.spans = []  # open spans
    self.texts: list[list[str]] = [[]]  # text inside each of them

  def handle_starttag(self, tag, attrs):
    if tag in BLOCKS:
      self.end()
      attributes = {key: value or "" for key, value in attrs}
      of_kind = attributes.get("id", "").startswith(KINDS)
      wanted = of_kind and "code" not in attributes.get("class", "")
      self.block = attributes["id"] if wanted else None
    elif tag == "span":
      self._open(dict(attrs))
    elif tag == "br":
      self.texts[-1].append(" ")
    self.mute += tag in MUTE

  def handle_endtag(self, tag):
    if tag in BLOCKS:
      self.end()
    elif tag == "span" and self.spans:
      self._close()
    self.mute -= tag in MUTE and self.mute > 0

  def handle_data(self, data):
    if self.block and not self.mute:
      self.texts[-1].append(data)

  def end(self):
    """Ends the block that is read, and the spans that it left open."""
    while self.spans:
      self._close()
    text = sentences.clean("".join(self.texts[0]))
    if self.block:
      count = self.counts.get(self.block, 0)
      self.counts[self.block] = count + 1
      self.found |= {(self.block, count): text} if text else {}
    self.block, self.texts = None, [[]]

  def _open(self, attrs):
    inside = self.spans[-1] if self.spans else {}
    kind = "plain"
    if attrs.get("class") == "switchinline":
      kind = "switch"
    elif inside.get("kind") == "switch" and "hidden" in attrs:
      kind = "variant"
    self.spans.append({"kind": kind, "id": attrs.get("id") or "", "variants": []})
    self.texts += [[]] if kind != "plain" else []

  def _close(self):
    span = self.spans.pop()
    if span["kind"] == "plain":
      return
    text = "".join(self.texts.pop())
    if span["kind"] == "variant":
      self.spans[-1]["variants"].append((span["id"], text))
      return
    usual = [text for name, text in span["variants"] if name.startswith("default")]
    either = itertools.chain(usual, (text for _, text in span["variants"]))
    self.texts[-1].append(next(either, ""))
