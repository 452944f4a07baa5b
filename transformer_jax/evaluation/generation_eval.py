"""Evaluation of generated texts: BLEU and chrF, beside trivial baselines."""

import dataclasses
import weakref
from collections.abc import Sequence
from typing import Any, ClassVar

from transformer_jax.data.base import GenerationSet
from transformer_jax.evaluation.beam import Beam
from transformer_jax.evaluation.maps import attention_map
from transformer_jax.evaluation.source_lengths import (
  LengthBin,
  described,
  length_bins,
)
from transformer_jax.evaluation.target_fingerprints import of_texts
from transformer_jax.evaluation.task_evaluation import TaskEvaluation
from transformer_jax.evaluation.text_scores import (
  CorpusScore,
  nearest_targets,
  scores,
)
from transformer_jax.evaluation.translator import Translator

TextScores = tuple[CorpusScore, ...]  # in the order of the measures

MEASURES = {"bleu": "higher", "chrf": "higher"}
NO_TEXT = "logits of a text are not numbers"  # why a seed has no score
RESAMPLES = 1000  # of sentences, for the interval of one seed's score
SAMPLES = 5  # texts shown in the report


@dataclasses.dataclass(frozen=True)
class GenerationEval(TaskEvaluation):
  """Settings of the evaluation of generated texts.

  how          settings of the beam search
  most         texts to generate; 0: none
  batch_size   texts in a batch

  >>> GenerationEval(Beam(width=4), most=100, batch_size=32).how.width
  4
  """

  how: Beam
  most: int
  batch_size: int

  kind: ClassVar[str] = "texts"
  measures: ClassVar[dict[str, str]] = MEASURES
  file: ClassVar[str] = "translations.json"
  no_score: ClassVar[str] = NO_TEXT
  made: ClassVar[str] = "translation"
  # What `trivial` returns, in words for the report.
  baselines: ClassVar[dict[str, str]] = {
    "copy": "the source itself",
    "nearest": "the target of the most similar training source",
  }

  def agent(self, examples, model, params, length, place):
    return Translator(model, params, examples.tokenizer, length, place)

  def write(self, examples: GenerationSet, translator: Translator) -> list[str | None]:
    """Returns the translation of each source; batches are of similar lengths."""

    def length(n: int) -> int:
      return len(examples.tokenizer.encode(examples.sources[n]))

    order = sorted(range(len(examples.sources)), key=length)
    ordered = [examples.sources[n] for n in order]
    translations = translator.all(ordered, self.how, self.batch_size)
    by_place = dict(zip(order, translations, strict=True))
    return [by_place[n] for n in range(len(order))]

  def score(
    self, examples: GenerationSet, hypotheses: Sequence[str], resamples: int = 0
  ) -> tuple[CorpusScore, ...]:
    """Returns the scores of texts, in the order of `measures`.

    hypotheses   one for each example
    resamples    number of bootstrap resamples; 0: no interval
    """
    return scores(hypotheses, examples.references, resamples, examples.bleu)

  def trivial(self, examples: GenerationSet) -> dict[str, list[str]]:
    """Returns the texts of the trivial baselines, by name."""
    nearest = nearest_targets(examples.examples, examples.sources)
    return {"copy": examples.sources, "nearest": nearest}

  def _values(self, scored: Sequence[CorpusScore]) -> dict[str, float]:
    return {name: x.value for name, x in zip(self.measures, scored, strict=True)}

  def _scored(
    self, examples: GenerationSet, hypotheses: list[str | None]
  ) -> TextScores:
    """Returns the scores of one seed; () unless it generated every text."""
    whole = [text for text in hypotheses if text is not None]
    if len(whole) < len(hypotheses):
      return ()
    return self.score(examples, whole, RESAMPLES)

  def _floors(self, examples: GenerationSet) -> dict[str, TextScores]:
    """Returns the scores of the baselines on the first `most` texts, computed once."""
    known = _floors_memo.setdefault(examples, {})
    if (self.kind, self.most) not in known:
      few = examples.first(self.most)
      texts = self.trivial(few).items()
      known[self.kind, self.most] = {name: self.score(few, x) for name, x in texts}
    return known[self.kind, self.most]

  def lines(self, examples, made, seeds):
    return [
      {"source": source, "reference": reference}
      | {f"seed {seed}": text for seed, text in zip(seeds, texts, strict=True)}
      for source, reference, *texts in zip(
        examples.sources, examples.references, *made, strict=False
      )
    ]

  def record(
    self, examples: GenerationSet, agents: Sequence[Translator]
  ) -> dict[str, Any]:
    """Returns the record for result.json: scores of each seed, and samples.

    agents   one for each seed

    `all` holds the translations of each seed. A seed without a translation of every
    text has no score.
    """
    baselines = self._floors(examples)
    examples = examples.first(self.most)
    texts = [self.write(examples, translator) for translator in agents]
    scored = [self._scored(examples, hypotheses) for hypotheses in texts]
    signed = next((x for x in scored if x), next(iter(baselines.values())))
    highest = max(floor[0].value for floor in baselines.values())
    shown, bins = _spread(examples), length_bins(examples.sources)
    middle = shown[len(shown) // 2]
    none = dict.fromkeys(self.measures)
    return {
      "texts": len(examples.sources),
      "fingerprint": of_texts(examples.references),
      "search": f"beam {self.how.width}, {self.how.penalty}",
      "signatures": [*dict.fromkeys(score.signature for score in signed)],
      "made": self.made,
      "baselines": self.baselines,
      "floors": {name: self._values(both) for name, both in baselines.items()},
      "scores": [self._values(x) if x else none for x in scored],
      "margins": [[y.margin for y in x] if x else [*none.values()] for x in scored],
      "lengths": described(bins),
      "by_length": [self._by_length(examples, bins, x) for x in texts],
      "below": [bool(x) and x[0].value <= highest for x in scored],
      "samples": [
        [examples.sources[n], examples.references[n], texts[0][n] or ""] for n in shown
      ],
      "map": attention_map(agents[0], examples.sources[middle], texts[0][middle]),
      "all": texts,
    }

  def _by_length(
    self,
    examples: GenerationSet,
    bins: Sequence[LengthBin],
    hypotheses: list[str | None],
  ) -> list[dict[str, float]] | None:
    """Returns the scores of the texts of each bin; None unless all are there."""
    whole = [text for text in hypotheses if text is not None]
    if len(whole) < len(hypotheses):
      return None

    def one(places: Sequence[int]) -> dict[str, float]:
      texts = [whole[n] for n in places]
      return self._values(self.score(examples.at(places), texts))

    return [one(each.places) for each in bins]


# Memo of `_floors`: runs of a sweep share a set. An entry goes with its set; nothing
# else reads it.
_floors_memo: weakref.WeakKeyDictionary[
  GenerationSet, dict[tuple[str, int], dict[str, TextScores]]
] = weakref.WeakKeyDictionary()


def _spread(examples: GenerationSet) -> list[int]:
  """Returns the places of the samples: evenly spaced from shortest to longest."""
  order = sorted(range(len(examples.sources)), key=lambda n: len(examples.sources[n]))
  many = min(SAMPLES, len(order))
  return [order[(2 * n + 1) * len(order) // (2 * many)] for n in range(many)]
