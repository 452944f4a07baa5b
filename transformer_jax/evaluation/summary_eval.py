"""Evaluation of generated summaries: ROUGE, beside trivial baselines."""

import dataclasses
from typing import ClassVar

from transformer_jax.evaluation import rouge
from transformer_jax.evaluation.generation_eval import GenerationEval


@dataclasses.dataclass(frozen=True)
class SummaryEval(GenerationEval):
  """Settings of the evaluation of generated summaries.

  >>> from transformer_jax.evaluation.beam import Beam
  >>> SummaryEval(Beam(width=4), most=100, batch_size=32).measures
  {'rougeL': 'higher', 'rouge1': 'higher', 'rouge2': 'higher'}
  """

  kind: ClassVar[str] = "summaries"
  # The headline first: ROUGE-L, which reads the order of words too.
  measures: ClassVar[dict[str, str]] = dict.fromkeys(
    ("rougeL", "rouge1", "rouge2"), "higher"
  )
  file: ClassVar[str] = "summaries.json"
  made: ClassVar[str] = "summary"
  baselines: ClassVar[dict[str, str]] = {
    "lead": "the first words of the text, as many as a summary has",
    "nearest": "the summary of the most similar training text",
  }

  def score(self, examples, hypotheses, resamples=0):
    found = rouge.rouge(hypotheses, examples.references, resamples)
    by_name = {score.name: score for score in found}
    return tuple(by_name[name] for name in self.measures)

  def trivial(self, examples):
    return rouge.baselines(examples.sources, examples.examples)
