"""Analysis of trained models: what heads do, what layers know."""

from transformer_jax.analysis import head_targets
from transformer_jax.analysis.head_analysis import HeadAnalysis, HeadScores
from transformer_jax.analysis.head_batch import HeadBatch, Vocabulary, of_pieces
from transformer_jax.analysis.head_similarity import HeadSimilarity, head_similarities
from transformer_jax.analysis.head_statistic import HeadStatistic, head_statistics

__all__ = [
  "HeadAnalysis",
  "HeadBatch",
  "HeadScores",
  "HeadSimilarity",
  "HeadStatistic",
  "Vocabulary",
  "head_similarities",
  "head_statistics",
  "head_targets",
  "of_pieces",
]
