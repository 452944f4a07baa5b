"""Majority-class and lookup baselines for labelled tasks. No JAX here."""

import collections
from collections.abc import Callable
from typing import Any

import numpy as np

from transformer_jax.data.readers.labelled_text import Example

Counts = collections.Counter[str]  # of labels


def guesses(train: list[Example], scored: list[Example]) -> dict[str, Any]:
  """Returns the baselines' scores, and the labels that never occur in training.

  accuracy   of always guessing the most common label
  lookup     accuracy of guessing the most common label of the same word or text, if it
             was trained on; both are means over examples, as evaluation reports
  """
  of_part: dict[tuple[str, ...], Counts] = collections.defaultdict(collections.Counter)
  for example in train:
    for part, label in zip(example.parts, example.labels, strict=True):
      of_part[part, *example.second][label] += 1
  trained: Counts = sum(of_part.values(), collections.Counter())
  usual, known = _common(trained), {part: _common(x) for part, x in of_part.items()}
  facts = {
    "label": usual,
    "accuracy": _share(scored, lambda key: usual),
    "lookup": _share(scored, lambda key: known.get(key, usual)),
  }
  unseen = sorted({x for each in scored for x in each.labels} - trained.keys())
  return {"guess": facts, "unseen": unseen}


def _common(counts: Counts) -> str:
  """Returns the most common label; of equally common ones the first by spelling."""
  return min(counts, key=lambda label: (-counts[label], label))


def _share(some: list[Example], guess: Callable[[tuple[str, ...]], str]) -> float:
  """Returns the accuracy per example, averaged over examples."""

  def right(x):
    return [
      guess((part, *x.second)) == label
      for part, label in zip(x.parts, x.labels, strict=True)
    ]

  return round(float(np.mean([np.mean(right(x)) for x in some])), 4)
