"""Base classes of objectives: what a model's outputs are, and how wrong they are."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from transformer_jax.data.base import Batch, Task
from transformer_jax.matmul import whole_along_width
from transformer_jax.spec import Registry, SpecError


class Objective:
  """Base class of objectives, which a task names as `Task.objective`.

  Subclasses are frozen dataclasses of pure functions.

  metric    name of the second sum of `sums` in the metrics of training
  targets   of which tasks it is: "labels", which are tokens or classes, or "numbers"

  >>> objectives.build("cross_entropy").metric
  'accuracy'
  """

  metric: ClassVar[str]
  targets: ClassVar[str]

  def outputs(self, task: Task) -> int | None:
    """Returns how many outputs a place needs; None: those of the vocabulary."""
    raise NotImplementedError

  def sums(
    self,
    x_BLD: jax.Array,
    output_VD: jax.Array,
    batch: Batch,
    smoothing: float,
    n: int,
  ) -> tuple[jax.Array, jax.Array]:
    """Returns the sums of weighted losses and of the weighted metric over places.

    x_BLD       states of the last layer
    output_VD   output projection: x @ output^T are the outputs
    batch       has the targets and their weights
    smoothing   label smoothing
    n           number of chunks of the length that are computed one after another
    """
    raise NotImplementedError

  def losses(
    self, outputs_BLV: jax.Array, target: jax.Array, weight_BL: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """Returns loss_BL and the metric of each place, unweighted.

    outputs_BLV   of the model
    target        of the batch: target_BL, or target_BLN
    weight_BL     of the places; those of weight 0 may have any loss
    """
    raise NotImplementedError

  def predicted(self, outputs_BLV: jax.Array) -> jax.Array:
    """Returns what the model says: label_BL, or number_BLN."""
    raise NotImplementedError


class RegressionObjective(Objective):
  """Base class of objectives on numbers, float32 [B, L, N]: means over the N numbers.

  Raises ValueError for outputs that are not those of as many numbers.

  per_number   outputs of each number, P; a user's subclass may make it a property

  >>> objectives.build("gaussian").per_number
  2
  """

  metric: ClassVar[str] = "mae"
  targets: ClassVar[str] = "numbers"
  per_number: Any = 1

  def number_losses(self, outputs_BLNP: jax.Array, target_BLN: jax.Array) -> jax.Array:
    """Returns the loss of each number, [B, L, N]."""
    raise NotImplementedError

  def points(self, outputs_BLNP: jax.Array) -> jax.Array:
    """Returns the predicted number_BLN."""
    return outputs_BLNP[..., 0]

  def outputs(self, task: Task) -> int:
    return (task.target_numbers or 0) * self.per_number

  def predicted(self, outputs_BLV: jax.Array) -> jax.Array:
    return self.points(self._split(outputs_BLV))

  def sums(self, x_BLD, output_VD, batch, smoothing, n):
    reads_DV = whole_along_width(output_VD.T, "DV", x_BLD.dtype)
    outputs_BLV = jnp.matmul(x_BLD, reads_DV, preferred_element_type=jnp.float32)
    found = self.losses(outputs_BLV, batch.target_BL, batch.weight_BL)
    loss, error = (jnp.sum(x_BL * batch.weight_BL) for x_BL in found)
    return loss, error

  def losses(self, outputs_BLV, target, weight_BL):
    # A number that does not count may be missing: NaN times 0 would be NaN.
    target_BLN = jnp.where(weight_BL[..., None] > 0, target, 0.0)
    outputs_BLNP = self._split(outputs_BLV)
    if outputs_BLNP.shape[:-1] != target_BLN.shape:  # they would be broadcast
      N, P = target_BLN.shape[-1], self.per_number
      raise ValueError(
        f"{type(self).__name__}: outputs of shape {outputs_BLV.shape} and targets of"
        f" shape {target.shape}; {N} numbers need {N * P} outputs, {P} for each"
      )
    loss_BLN = self.number_losses(outputs_BLNP, target_BLN)
    error_BLN = jnp.abs(self.points(outputs_BLNP) - target_BLN)
    return loss_BLN.mean(axis=-1), error_BLN.mean(axis=-1)

  def _split(self, outputs_BLV: jax.Array) -> jax.Array:
    return outputs_BLV.reshape(*outputs_BLV.shape[:-1], -1, self.per_number)


objectives = Registry("objective", Objective)


def objective_of(task: Task) -> Objective:
  """Returns the objective of a task; raises SpecError if it does not fit its targets.

  >>> from transformer_jax.data.base import tasks
  >>> objective_of(tasks.build("copy(symbols=2)")).targets
  'labels'
  """
  objective = objectives.build(task.objective)
  kind = "numbers" if task.target_numbers else "labels"
  if objective.targets != kind:
    fitting = [name for name, x in objectives.items() if _targets(x) == kind]
    raise SpecError(
      f"objective={task.objective} is of {objective.targets}, and"
      f" {type(task).__name__} has {kind} as targets; write one of {', '.join(fitting)}"
    )
  return objective


def output_size(task: Task) -> int | None:
  """Returns how many outputs a model of the task has; None: those of the vocabulary."""
  return objective_of(task).outputs(task)


def _targets(kind: Any) -> str:
  return kind.targets
