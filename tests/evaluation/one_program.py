"""Scores of one seed by one program, where an evaluator has three of them."""

import jax


def scores(evaluator, params, arrays, length, bucket):
  """Returns what `BatchScorer.average` does: it draws, computes and averages."""
  key, last = jax.random.key(evaluator.key), evaluator.last(bucket)
  batch = evaluator.task.score(arrays, key, evaluator.examples, length, bucket)
  batch = batch.last_targets(last)
  outputs = evaluator.scorer.chunks(params, batch, last)
  return evaluator.scorer.average(*outputs, batch.weight_BL)
