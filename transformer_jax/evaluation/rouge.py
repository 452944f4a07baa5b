"""ROUGE of summaries, by Google's rouge-score. Lin, 2004.

https://aclanthology.org/W04-1013
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from transformer_jax.evaluation.text_scores import CorpusScore, nearest_targets

NAMES = ("rouge1", "rouge2", "rougeL")
LEAD = "lead"


def rouge(
  hypotheses: Sequence[str], references: Sequence[str], resamples: int = 0
) -> tuple[CorpusScore, ...]:
  """Returns ROUGE-1, ROUGE-2 and ROUGE-L: means of F1 over texts, from 0 to 100.

  hypotheses   summaries
  references   one for each summary
  resamples    number of bootstrap resamples of texts, for 95% intervals; 0: none

  Words are lower-cased and stemmed (Porter): what is no ASCII letter or digit divides
  words, so that other scripts than the Latin one have none.

  Raises ValueError without texts, for lists of unequal length, or where rouge-score is
  not installed.

  >>> r1, r2, rl = rouge(["a cat is on the mat"], ["the cat sat on the mat"])
  >>> round(r1.value, 1), round(r2.value, 1), round(rl.value, 1)
  (66.7, 40.0, 66.7)
  """
  if not hypotheses or len(hypotheses) != len(references):
    raise ValueError(
      f"{len(hypotheses)} summaries and {len(references)} references; give at least one"
      " of each, and as many"
    )
  scorer, version = _scorer()
  pairs = zip(references, hypotheses, strict=True)
  f1_TN = np.array([_f1(scorer.score(*pair)) for pair in pairs])
  signature = f"rouge-score {version}, F1, Porter stemmer"
  margin_N = _margins(f1_TN, resamples)
  return tuple(
    CorpusScore(name, float(value), signature, margin)
    for name, value, margin in zip(NAMES, f1_TN.mean(axis=0), margin_N, strict=True)
  )


def _scorer() -> tuple[Any, str]:
  """Returns the scorer of rouge-score and its version; raises ValueError."""
  import importlib.metadata

  try:
    from rouge_score.rouge_scorer import RougeScorer
  except ImportError as error:
    raise ValueError(
      "ROUGE needs rouge-score, which is not installed: pip install -e .[rouge]"
    ) from error
  return RougeScorer(NAMES, use_stemmer=True), importlib.metadata.version("rouge-score")


def _f1(scores: Any) -> list[float]:
  return [100 * scores[name].fmeasure for name in NAMES]


def _margins(f1_TN: np.ndarray, resamples: int) -> list[float | None]:
  """Returns half of the 95% interval of each mean, by resampled texts."""
  if not resamples:
    return [None] * len(NAMES)
  random = np.random.default_rng(0)
  chosen_RT = random.integers(len(f1_TN), size=(resamples, len(f1_TN)))
  low_N, high_N = np.quantile(f1_TN[chosen_RT].mean(axis=1), (0.025, 0.975), axis=0)
  return [float(x) for x in (high_N - low_N) / 2]


def baselines(
  sources: Sequence[str], train: Sequence[tuple[str, str]]
) -> dict[str, list[str]]:
  """Returns the summaries of the trivial baselines, by name.

  sources   texts to summarize
  train     (text, summary) pairs of the training data

  lead has the first words of a text, as many as a training summary has on average;
  nearest the summary of the most similar training text.

  >>> baselines(["a long text about cats"], [("about cats", "on cats")])["lead"]
  ['a long']
  """
  size = max(1, round(float(np.mean([len(x.split()) for _, x in train]))))
  return {
    LEAD: [" ".join(source.split()[:size]) for source in sources],
    "nearest": nearest_targets(train, sources),
  }
