"""Scores of whole texts that a model writes, beside those of what is no translation."""

import dataclasses
import weakref
from collections.abc import Sequence
from typing import Any

from transformer_jax.data.base import GenerationSet
from transformer_jax.evaluation.beam import Beam
from transformer_jax.evaluation.maps import attention_map
from transformer_jax.evaluation.target_fingerprints import of_texts
from transformer_jax.evaluation.text_scores import CorpusScore, Verdict, floors, judge
from transformer_jax.evaluation.translator import Translator

Floors = dict[str, tuple[CorpusScore, CorpusScore]]  # BLEU and chrF by baseline

MEASURES = {"bleu": "higher", "chrf": "higher"}
NO_SCORE, NONE = dict.fromkeys(MEASURES), [None, None]
NO_TEXT = "logits of a text are not numbers"  # why a seed has no score
RESAMPLES = 1000  # of sentences, for the interval of one seed's score
SAMPLES = 5  # texts that are kept to be read


@dataclasses.dataclass(frozen=True)
class GenerationEval:
  """How texts are written and judged.

  most   texts that are written; 0: none
  rows   of them go together
  """

  how: Beam
  most: int
  rows: int

  def write(self, asked: GenerationSet, translator: Translator) -> list[str | None]:
    """Returns the translations; texts of like length go together, which is faster."""
    count = lambda n: len(asked.tokenizer.encode(asked.sources[n]))
    order = sorted(range(len(asked.sources)), key=count)
    ordered = [asked.sources[n] for n in order]
    found = dict(zip(order, translator.all(ordered, self.how, self.rows), strict=True))
    return [found[n] for n in range(len(order))]

  def _judge(
    self, examples: GenerationSet, hypotheses: list[str | None], baselines: Floors
  ) -> Verdict | None:
    """Returns the scores of a translator; None unless it translated every text."""
    whole = [text for text in hypotheses if text is not None]
    if len(whole) < len(hypotheses):
      return None
    return judge(whole, examples.references, baselines, RESAMPLES, examples.bleu)

  def record(
    self, asked: GenerationSet, translators: Sequence[Translator]
  ) -> dict[str, Any]:
    """Returns what a run's result holds: scores of each translator, texts to read.

    There is one translator for each seed; `all` are the texts of each of them. A seed
    without a translation of every text has no score.
    """
    beside = _floors(asked, self.most)
    asked = asked.first(self.most)
    texts = [self.write(asked, translator) for translator in translators]
    verdicts = [self._judge(asked, hypotheses, beside) for hypotheses in texts]
    whole = [x for x in verdicts if x]
    scored = (whole[0].bleu, whole[0].chrf) if whole else next(iter(beside.values()))
    shown = _spread(asked)
    middle = shown[len(shown) // 2]
    return {
      "texts": len(asked.sources),
      "fingerprint": of_texts(asked.references),
      "search": f"beam {self.how.width}, {self.how.penalty}",
      "signatures": [score.signature for score in scored],
      "floors": {name: _values(both) for name, both in beside.items()},
      "scores": [_values((x.bleu, x.chrf)) if x else NO_SCORE for x in verdicts],
      "margins": [[x.bleu.margin, x.chrf.margin] if x else NONE for x in verdicts],
      "below": [x is not None and not x.translates for x in verdicts],
      "samples": [
        [asked.sources[n], asked.references[n], texts[0][n] or ""] for n in shown
      ],
      "map": attention_map(translators[0], asked.sources[middle], texts[0][middle]),
      "all": texts,
    }


# Runs of a sweep share a set; its scores go with it.
_floors_of: weakref.WeakKeyDictionary[GenerationSet, dict[int, Floors]] = (
  weakref.WeakKeyDictionary()
)


def _floors(examples: GenerationSet, most: int) -> Floors:
  """Returns the scores of the first `most` texts by baselines, computed once."""
  known = _floors_of.setdefault(examples, {})
  if most not in known:
    few = examples.first(most)
    known[most] = floors(few.sources, few.references, few.examples, few.bleu)
  return known[most]


def _values(both: tuple[CorpusScore, CorpusScore]) -> dict[str, float]:
  return {name: x.value for name, x in zip(MEASURES, both, strict=True)}


def _spread(asked: GenerationSet) -> list[int]:
  """Returns which texts are shown: at even steps from the shortest to the longest."""
  order = sorted(range(len(asked.sources)), key=lambda n: len(asked.sources[n]))
  many = min(SAMPLES, len(order))
  return [order[(2 * n + 1) * len(order) // (2 * many)] for n in range(many)]
