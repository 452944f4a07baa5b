"""Step metrics of one training step, beside the training: a program of its own.

It takes the gradient of the first step of a dispatch once more, so that the program of
the training is the same with and without metrics, bit for bit.
"""

from collections.abc import Sequence
from typing import Any

import jax

from transformer_jax.batch_part import BatchPart
from transformer_jax.data.base import Batch
from transformer_jax.models import capture
from transformer_jax.training.accumulate import map_parts
from transformer_jax.training.step import State, Trainer
from transformer_jax.training.step_metrics import StepMetric
from transformer_jax.training.step_metrics.base import PassArrays, Scalars, StepArrays


def look(
  trainer: Trainer,
  metrics: Sequence[StepMetric],
  arrays: Any,
  state: State,
  windows: Sequence[jax.Array] = (),
) -> Scalars:
  """Returns {"grad_norm/decoder/layer_0": x_1, ...} of the next step of one seed.

  metrics   what is computed
  arrays    the task's data
  state     before the step; it stays as it is
  windows   of each read of a text on the host, stacked by step
  """
  batch = trainer.batch(arrays, state, [x[0] for x in windows])
  found: Scalars = {}
  if any(type(metric).of_step is not StepMetric.of_step for metric in metrics):
    step = _step_arrays(trainer, state, batch)
    for metric in metrics:
      found |= _named(metric, metric.of_step(step))
  for metric, values in _of_passes(trainer, metrics, state, batch):
    found |= _named(metric, values)
  return {name: x[None] for name, x in found.items()}


def _step_arrays(trainer: Trainer, state: State, batch: Batch) -> StepArrays:
  _, grads = trainer.gradients(state, batch)
  grads = trainer.total(grads)
  updates, _ = trainer.optimizer.update(grads, state.moments, state.params)
  return StepArrays(grads, updates, state.params)


def _of_passes(
  trainer: Trainer, metrics: Sequence[StepMetric], state: State, batch: Batch
) -> list[tuple[StepMetric, Scalars]]:
  """Returns the metrics that read captured arrays, with their values."""
  reading = [metric for metric in metrics if metric.places]
  if not reading:
    return []

  def of_part(own: Batch, part: BatchPart | None) -> list[Scalars]:
    arrays = _captured(trainer, reading, state, trainer.constrain(own), part)
    return [metric.of_pass(arrays) for metric in reading]

  if trainer.accumulate == 1:
    stacked = jax.tree.map(lambda x: x[None], of_part(batch, None))
  else:
    stacked = map_parts(of_part, batch, trainer.accumulate)
  return [
    (metric, {path: metric.join(x_N) for path, x_N in values.items()})
    for metric, values in zip(reading, stacked, strict=True)
  ]


def _captured(
  trainer: Trainer,
  metrics: Sequence[StepMetric],
  state: State,
  batch: Batch,
  part: BatchPart | None,
) -> PassArrays:
  """Returns the captured arrays of one forward pass, as training makes it."""
  model = trainer.model_of(part)
  _, captured = capture.run(
    model,
    state.params,
    *batch.reads,
    want={place for metric in metrics for place in metric.places},
    method="hidden",
    rngs=trainer.rngs(state),
    progress=trainer.progress(state),
  )
  source_at = batch.at if batch.source_at is None else batch.source_at
  return PassArrays(
    captured, {"decoder": batch.at.real_BL, "encoder": source_at.real_BL}
  )


def _named(metric: StepMetric, values: Scalars) -> Scalars:
  """Returns values by their names in metrics.jsonl."""
  return {f"{metric.name}/{path}": x for path, x in values.items()}
