"""Bins of texts by the length of their sources.

Bahdanau et al., 2015, figure 2. https://arxiv.org/abs/1409.0473
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from transformer_jax.evaluation.text_scores import words

MOST_BINS = 6
LEAST_TEXTS = 20  # in a bin: BLEU counts 4-grams of a whole corpus


@dataclasses.dataclass(frozen=True)
class LengthBin:
  """Texts whose sources have from `first` to `last` words.

  places   of the texts

  >>> LengthBin(1, 8, (0, 2)).name
  '1-8'
  """

  first: int
  last: int
  places: tuple[int, ...]

  @property
  def name(self) -> str:
    """Returns its ends."""
    return f"{self.first}-{self.last}" if self.first < self.last else f"{self.first}"


def length_bins(
  sources: Sequence[str], most: int = MOST_BINS, least: int = LEAST_TEXTS
) -> list[LengthBin]:
  """Returns bins of about as many texts each, by the number of words of a source.

  most    number of bins
  least   texts in a bin; with fewer texts in all there is one bin

  Sources of one length are in one bin, whatever their number. A character is a word in
  scripts without spaces.

  >>> [(x.name, x.places) for x in length_bins(["a", "b c d", "e", "f g"], 2, least=1)]
  [('1', (0, 2)), ('2-3', (1, 3))]
  """
  length_N = [len(words(source)) for source in sources]
  order = sorted(range(len(sources)), key=length_N.__getitem__)
  size = max(least, -(-len(order) // most), 1)
  bins: list[list[int]] = []
  for n in order:
    full = bins and len(bins[-1]) >= size
    if not bins or (full and length_N[n] > length_N[bins[-1][-1]]):
      bins.append([])
    bins[-1].append(n)
  if len(bins) > 1 and len(bins[-1]) < least:  # the rest joins the last whole one
    rest = bins.pop()
    bins[-1] += rest
  return [
    LengthBin(length_N[each[0]], length_N[each[-1]], tuple(sorted(each)))
    for each in bins
  ]


def described(bins: Sequence[LengthBin]) -> list[dict[str, Any]]:
  """Returns the ends of each bin in words, and its number of texts, for result.json.

  >>> described([LengthBin(1, 8, (0, 2))])
  [{'first': 1, 'last': 8, 'texts': 2}]
  """
  return [{"first": x.first, "last": x.last, "texts": len(x.places)} for x in bins]
