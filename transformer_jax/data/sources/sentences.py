"""Sentence alignment of parallel paragraphs, and a filter of bad pairs."""

import re
import unicodedata
from collections.abc import Iterable, Iterator

INVISIBLE = dict.fromkeys(map(ord, "\u00ad\u200b"))  # soft hyphen, zero-width space
# A full stop, perhaps closing quotes, and a capital or a number after a space.
CLOSE, OPEN = "\"'\u201c\u201d\u00bb)", '"\u201e\u201c\u00ab('
BORDER = re.compile(rf"(?<=[.!?])[{CLOSE}]*\s+(?=[{OPEN}]*[A-Z\u00c0-\u00de0-9])")
SHORT = "z\\. ?B|d\\. ?h|u\\. ?a|usw|bzw|ca|Nr|Abb|vgl|evtl|ggf|Std|Min|Sek"
SHORT += "|e\\.g|i\\.e|etc|vs|Mr|Mrs|Dr|St|No|Fig|p\\. ex|c\\.-à-d"
ABBREVIATED = re.compile(rf"\b(?:{SHORT})\.$", re.IGNORECASE)
LETTER = re.compile(r"[^\W\d_]")
WORDS = 3, 80  # least and most words of the side by which duplicates are detected
RATIO = 2.2  # of the two sides' lengths, at most
LETTERS = 0.6  # share of a side's characters, at least


def clean(text: str) -> str:
  """Returns the text composed (NFC), in one line, without invisible characters."""
  return " ".join(unicodedata.normalize("NFC", text).translate(INVISIBLE).split())


def sentences(text: str) -> list[str]:
  """Cuts a paragraph into sentences; not after an abbreviation."""
  found: list[str] = []
  for part in BORDER.split(text):
    if found and ABBREVIATED.search(found[-1]):
      found[-1] += f" {part}"
    else:
      found.append(part)
  return found


def aligned(first: str, second: str) -> list[tuple[str, str]]:
  """Returns the pairs of sentences, or of whole paragraphs when sentences differ."""
  pairs = list(zip(sentences(first), sentences(second), strict=False))
  same = len(sentences(first)) == len(sentences(second)) > 1
  if same and all(0.4 < len(a) / max(1, len(b)) < 2.5 for a, b in pairs):
    return pairs
  return [(first, second)]


def good(first: str, second: str) -> bool:
  """Returns whether two texts look like a sentence and its translation."""
  least, most = WORDS
  if not first or not second or first == second:
    return False
  if not least <= len(first.split()) <= most or len(second.split()) > 1.5 * most:
    return False
  if not 1 / RATIO <= len(first) / len(second) <= RATIO:
    return False

  def share(text):
    return len(LETTER.findall(text)) / len(text.replace(" ", ""))

  return min(share(first), share(second)) >= LETTERS


def pairs(
  paragraphs: Iterable[tuple[str, str, str]],
) -> Iterator[tuple[str, str, str]]:
  """Yields (first, second, document) of good pairs; each first text comes once."""
  seen = set()
  for one, other, document in paragraphs:
    for first, second in aligned(clean(one), clean(other)):
      if good(first, second) and first.lower() not in seen:
        seen.add(first.lower())
        yield first, second, document
