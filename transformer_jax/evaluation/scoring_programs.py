"""Programs that score a model at a length: draw a batch, apply the model, average.

Three programs and not one: the first and the last are the same for all models of a
task, so that they compile once in a comparison of models.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from transformer_jax import compiler_options
from transformer_jax.data.base import Batch, Task
from transformer_jax.evaluation.batch_scores import BatchScorer
from transformer_jax.training import sharding


@functools.lru_cache(maxsize=8)  # compiled once for all models of a task
def drawing(task: Task, examples: int, key: int) -> Any:
  """Returns the jitted `(arrays, length, bucket) -> Batch` of scored examples.

  examples   as many as there are, up to this number
  key        seed of the draw
  """

  def draw(arrays: Any, length: jax.Array, bucket: int) -> Batch:
    return task.score(arrays, jax.random.key(key), examples, length, bucket)

  options = compiler_options.of_few_calls()
  return jax.jit(draw, static_argnums=2, compiler_options=options)


def averaging(scorer: BatchScorer) -> Any:
  """Returns the jitted average of what `ScoringPrograms.losses` returns.

  It is traced once for all buckets that have as many places with targets.
  """

  def average(found: tuple[Any, ...]) -> Any:
    return scorer.average(*found)

  options = compiler_options.of_few_calls()
  return jax.jit(sharding.map_seeds(average, (0,)), compiler_options=options)


@dataclasses.dataclass(frozen=True, eq=False)
class ScoringPrograms:
  """Programs of one bucket of lengths: `scores = program(params, arrays, length)`.

  draw      returns the batch of (arrays, length, bucket)
  bucket    the length that sets the shapes
  losses    of (params, batch), params stacked by seed: the losses of the last places,
            and their weights
  average   of what `losses` returns

  >>> [field.name for field in dataclasses.fields(ScoringPrograms)]
  ['draw', 'bucket', 'losses', 'average']
  """

  draw: Any
  bucket: int
  losses: Any
  average: Any

  @classmethod
  def of(
    cls, scorer: BatchScorer, draw: Any, average: Any, bucket: int, last: int | None
  ) -> "ScoringPrograms":
    """Returns the programs of a model.

    scorer    of the model
    draw      see `drawing`
    average   see `averaging`
    bucket    the length that sets the shapes
    last      how many of the last places may have a target; None: any place
    """

    def losses(params: Any, batch: Batch) -> tuple[Any, ...]:
      batch = batch.last_targets(last)
      return (*scorer.chunks(params, batch, last), batch.weight_BL)

    return cls(draw, bucket, jax.jit(sharding.map_seeds(losses, (0, None))), average)

  def __call__(self, parts: Sequence[Any], arrays: Any, length: int) -> list[Any]:
    """Returns the result of `BatchScorer.average` for each part of the seeds.

    parts    parameters, stacked by seed
    arrays   of the task
    length   of the examples
    """
    batch = self.draw(arrays, np.int32(length), self.bucket)
    return [self.average(self.losses(params, batch)) for params in parts]

  def check(self, params: Any, arrays: Any) -> None:
    """Draws a batch and traces the model on it; raises their errors.

    A call with parameters of these shapes and shardings does not trace again.

    params   shapes, stacked by seed
    arrays   of the task, or their shapes: then a batch is traced, too
    """
    length = np.int32(self.bucket)
    shapes = any(isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves(arrays))
    draw = self.draw.eval_shape if shapes else self.draw
    self.losses.eval_shape(params, draw(arrays, length, self.bucket))
