"""Cross-entropy of tokens or classes, the objective of most tasks."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from transformer_jax.training import loss as losses
from transformer_jax.training.objectives.base import Objective, objectives


@objectives.register("cross_entropy")
@dataclasses.dataclass(frozen=True)
class LabelCrossEntropy(Objective):
  """Cross-entropy in nats, with label smoothing: see `training.loss`.

  Its metric is the accuracy, the share of targets that have the largest logit.

  >>> logits_BLV = jnp.array([[[0.0, 0.0]]])
  >>> target_BL, weight_BL = jnp.array([[0]]), jnp.ones((1, 1))
  >>> loss_BL, right_BL = LabelCrossEntropy().losses(logits_BLV, target_BL, weight_BL)
  >>> round(float(loss_BL[0, 0]), 3), right_BL.tolist()
  (0.693, [[True]])
  """

  metric: ClassVar[str] = "accuracy"
  targets: ClassVar[str] = "labels"

  def outputs(self, task):
    return task.classes

  def sums(self, x_BLD, output_VD, batch, smoothing, n):
    return losses.chunked_cross_entropy(
      x_BLD, output_VD, batch.target_BL, batch.weight_BL, smoothing, n
    )

  def losses(self, outputs_BLV, target, weight_BL):
    right_BL = self.predicted(outputs_BLV) == target
    loss_BL = losses.cross_entropy(outputs_BLV, target, weight_BL=weight_BL)
    return loss_BL, right_BL

  def predicted(self, outputs_BLV):
    return jnp.argmax(outputs_BLV, axis=-1)
