"""Spoken vowels of nine speakers. Kudo, Toyama and Shimbo, 1999.

https://doi.org/10.1016/S0167-8655(99)00077-X
"""

import csv
import dataclasses
import io
from collections.abc import Iterable
from typing import ClassVar

from transformer_jax.data.files import DataError
from transformer_jax.data.sources import archives
from transformer_jax.data.sources.base import TableSource, sources
from transformer_jax.data.sources.packages import Wheel

FILE = "aeon/datasets/data/JapaneseVowels/JapaneseVowels_{}.ts"
HELD_OUT = 10  # every tenth utterance of the training file is for validation

Utterance = tuple[str, list[list[str]]]  # speaker, and coefficients by channel


@sources.register("japanese_vowels")
@dataclasses.dataclass(frozen=True)
class JapaneseVowels(TableSource):
  """640 utterances of "ae" by nine men, as 12 numbers of each of 7 to 29 moments.

  The numbers are coefficients of linear prediction of the recorded sound (LPC
  cepstrum), not the sound itself. The test split is the original one.

  >>> table(3, [("2", [["0.1", "0.2"], ["5", "6"]])]).splitlines()
  ['example,label,c0,c1', '3,2,0.1,5', '3,2,0.2,6']
  """

  licence: ClassVar[str] = "CC-BY-4.0 (UCI); its package is BSD-3-Clause"
  homepage: ClassVar[str] = "https://archive.ics.uci.edu/dataset/128/japanese+vowels"
  description: ClassVar[str] = "The vowels ae by nine speakers, as LPC coefficients."
  example: ClassVar[str] = "japanese_vowels"
  task: ClassVar[str] = "signals"

  def fetcher(self):
    return Wheel(("aeon==1.6.0",))

  def tables(self, paths):
    files = archives.zipped_texts(paths[0], [FILE.format(x) for x in ("TRAIN", "TEST")])
    train, test = (list(utterances(text)) for text in files)
    return {
      "train.csv": table(0, [x for n, x in enumerate(train) if n % HELD_OUT]),
      "validation.csv": table(0, train[::HELD_OUT]),
      "test.csv": table(0, test),
    }


def utterances(text: str) -> Iterable[Utterance]:
  """Yields the examples of a file in aeon's format: channels, then the label."""
  head, data, body = text.partition("@data\n")
  if not data:
    raise DataError("a file of the package holds no @data; fetch the package again")
  for line in body.splitlines():
    *channels, label = line.split(":")
    yield label.strip(), [channel.split(",") for channel in channels]


def table(first: int, examples: Iterable[Utterance]) -> str:
  """Returns a CSV text with a line for each moment of each example.

  first      number of the first example
  examples   labels and numbers by channel; NaN pads an example at its end
  """
  out = io.StringIO()
  writer = csv.writer(out, lineterminator="\n")
  for n, (label, channels) in enumerate(examples, first):
    if n == first:
      writer.writerow(["example", "label", *(f"c{c}" for c in range(len(channels)))])
    for moment in zip(*channels, strict=True):
      if "NaN" not in moment and "?" not in moment:
        writer.writerow([n, label, *moment])
  return out.getvalue()
