"""Evaluation of generated texts: BLEU and chrF, beside trivial baselines."""

import dataclasses
import weakref
from collections.abc import Sequence
from typing import Any, ClassVar

from transformer_jax.data.base import GenerationSet
from transformer_jax.evaluation.beam import Beam
from transformer_jax.evaluation.maps import attention_map
from transformer_jax.evaluation.source_lengths import by_length, described, length_bins
from transformer_jax.evaluation.target_fingerprints import of_texts
from transformer_jax.evaluation.task_evaluation import TaskEvaluation
from transformer_jax.evaluation.text_scores import CorpusScore, Verdict, floors, judge
from transformer_jax.evaluation.translator import Translator

Floors = dict[str, tuple[CorpusScore, CorpusScore]]  # BLEU and chrF by baseline

MEASURES = {"bleu": "higher", "chrf": "higher"}
NO_SCORE, NONE = dict.fromkeys(MEASURES), [None, None]
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

  def _judge(
    self, examples: GenerationSet, hypotheses: list[str | None], baselines: Floors
  ) -> Verdict | None:
    """Returns the scores of a translator; None unless it translated every text."""
    whole = [text for text in hypotheses if text is not None]
    if len(whole) < len(hypotheses):
      return None
    return judge(whole, examples.references, baselines, RESAMPLES, examples.bleu)

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
    baselines = _floors(examples, self.most)
    examples = examples.first(self.most)
    texts = [self.write(examples, translator) for translator in agents]
    verdicts = [self._judge(examples, hypotheses, baselines) for hypotheses in texts]
    whole = [x for x in verdicts if x]
    scored = (whole[0].bleu, whole[0].chrf) if whole else next(iter(baselines.values()))
    shown, bins = _spread(examples), length_bins(examples.sources)
    middle = shown[len(shown) // 2]
    return {
      "texts": len(examples.sources),
      "fingerprint": of_texts(examples.references),
      "search": f"beam {self.how.width}, {self.how.penalty}",
      "signatures": [score.signature for score in scored],
      "floors": {name: _values(both) for name, both in baselines.items()},
      "scores": [_values((x.bleu, x.chrf)) if x else NO_SCORE for x in verdicts],
      "margins": [[x.bleu.margin, x.chrf.margin] if x else NONE for x in verdicts],
      "lengths": described(bins),
      "by_length": [
        by_length(bins, examples.references, hypotheses, examples.bleu)
        for hypotheses in texts
      ],
      "below": [x is not None and not x.translates for x in verdicts],
      "samples": [
        [examples.sources[n], examples.references[n], texts[0][n] or ""] for n in shown
      ],
      "map": attention_map(agents[0], examples.sources[middle], texts[0][middle]),
      "all": texts,
    }


# Memo of `_floors`, {set: {number of texts: scores}}: runs of a sweep share a set. An
# entry goes with its set; nothing else reads it.
_floors_memo: weakref.WeakKeyDictionary[GenerationSet, dict[int, Floors]] = (
  weakref.WeakKeyDictionary()
)


def _floors(examples: GenerationSet, most: int) -> Floors:
  """Returns the scores of the first `most` texts by baselines, computed once."""
  known = _floors_memo.setdefault(examples, {})
  if most not in known:
    few = examples.first(most)
    known[most] = floors(few.sources, few.references, few.examples, few.bleu)
  return known[most]


def _values(both: tuple[CorpusScore, CorpusScore]) -> dict[str, float]:
  return {name: x.value for name, x in zip(MEASURES, both, strict=True)}


def _spread(examples: GenerationSet) -> list[int]:
  """Returns the places of the samples: evenly spaced from shortest to longest."""
  order = sorted(range(len(examples.sources)), key=lambda n: len(examples.sources[n]))
  many = min(SAMPLES, len(order))
  return [order[(2 * n + 1) * len(order) // (2 * many)] for n in range(many)]
