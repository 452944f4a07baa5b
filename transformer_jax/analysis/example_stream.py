"""Texts of a data set, part by part: memory is that of one part.

A part is a program's input, its result has numbers of texts and never whole weights;
whole arrays come from `models.capture.run` on a batch that is chosen for them.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from transformer_jax.data.base import Batch

# From parameters and a part to a tree of arrays.
LookAtPart = Callable[[Any, Batch], Any]


def per_text(look: LookAtPart, params: Any, batch: Batch, batch_size: int) -> Any:
  """Returns what `look` says of each text, NumPy arrays whose first axis is texts.

  look         function of (parameters, part of the batch) that returns a tree of
               arrays, texts first; under `jax.jit` it is compiled once for each shape:
               for whole parts, and for the rest
  params       of one seed; other seeds use the same program
  batch        all texts; in the host's memory, as tokens are small
  batch_size   texts in memory at once

  >>> from transformer_jax.positions import coords
  >>> token_BL = np.arange(6).reshape(3, 2)
  >>> batch = Batch(token_BL, token_BL, np.ones((3, 2)), coords.consecutive(1, 2))
  >>> look = lambda params, part: part.input_BL.sum(1) + params
  >>> per_text(look, 10, batch, batch_size=2).tolist()
  [11, 15, 19]
  """
  found = [jax.device_get(look(params, part)) for part in parts(batch, batch_size)]
  return jax.tree.map(lambda *some: np.concatenate(some), *found)


def sums(look: LookAtPart, params: Any, batch: Batch, batch_size: int) -> Any:
  """Returns the sum over parts of what `look` returns, in double precision.

  Arguments are those of `per_text`; arrays have no axis of texts.
  """
  total = None
  for part in parts(batch, batch_size):
    found = jax.tree.map(np.float64, jax.device_get(look(params, part)))
    total = found if total is None else jax.tree.map(np.add, total, found)
  return total


def parts(batch: Batch, batch_size: int) -> Iterator[Batch]:
  """Yields a batch in parts; coordinates that all texts share stay whole."""
  if batch_size < 1:
    raise ValueError(f"batch_size={batch_size}: write 1 or more")
  for start in range(0, len(batch.input_BL), batch_size):
    yield batch.texts(start, start + batch_size)
