"""Fingerprints of scored targets: equal ones mean that two scores are comparable."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import xxhash

from transformer_jax import global_arrays
from transformer_jax.evaluation.lengths import Evaluator
from transformer_jax.evaluation.scoring_programs import drawing


def of_lengths(
  evaluator: Evaluator, arrays: Any, lengths: tuple[int, ...]
) -> dict[str, dict[str, Any]]:
  """Returns {length: {fingerprint, examples, targets, available}}, if it has a score.

  `available` is the number of examples to choose from; None: the task draws any number.
  A fingerprint covers the scored targets and their weights, example by example.
  Padding, the tokens before a target and the batch size do not change it.
  """
  draw = drawing(evaluator.task, evaluator.examples, evaluator.key)
  available = {"available": evaluator.task.available(arrays)}

  def fingerprint(length: int, bucket: int) -> dict[str, Any]:
    batch = draw(arrays, np.int32(length), bucket)
    return of_batch(*global_arrays.read((batch.target_BL, batch.weight_BL)))

  return {
    str(length): available | fingerprint(length, bucket)
    for length, bucket in evaluator.buckets(lengths).items()
  }


def of_batch(target_BL: np.ndarray, weight_BL: np.ndarray) -> dict[str, Any]:
  """Returns the fingerprint of one batch, its examples and targets that count."""
  counts_BL = weight_BL != 0
  size_B = counts_BL.sum(axis=1)
  size_B = size_B[size_B > 0]  # an example without a target has no score
  digest = xxhash.xxh3_128()
  digest.update(np.ascontiguousarray(size_B.astype("<i8")).data)
  kind = "<f4" if np.issubdtype(target_BL.dtype, np.floating) else "<i4"
  digest.update(np.ascontiguousarray(target_BL[counts_BL].astype(kind)).data)
  digest.update(np.ascontiguousarray(weight_BL[counts_BL].astype("<f4")).data)
  return {
    "fingerprint": digest.hexdigest(),
    "examples": len(size_B),
    "targets": int(size_B.sum()),
  }


def of_texts(texts: Sequence[str]) -> str:
  """Returns the fingerprint of reference texts, in their order."""
  digest = xxhash.xxh3_128()
  for text in texts:
    content = text.encode()
    digest.update(f"{len(content)}\0".encode() + content)
  return digest.hexdigest()
