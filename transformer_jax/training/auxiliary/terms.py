"""Sum of auxiliary losses, with the arrays that they read."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from transformer_jax.data.base import Batch
from transformer_jax.training.auxiliary.base import (
  HIDDEN,
  LOG_Z,
  AuxiliaryLoss,
  auxiliary_losses,
)
from transformer_jax.training.auxiliary.training_pass import (
  TARGETS,
  Hidden,
  TrainingPass,
)
from transformer_jax.training.loss import chunked_log_z

AUXILIARY = "auxiliary/"  # before the names of these losses among the metrics
PARAMS = "auxiliary"  # where their parameters are, among those of the model
OF_LOGITS = (LOG_Z, HIDDEN)


def name_of(loss: AuxiliaryLoss) -> str:
  """Returns a loss's name: `z_loss`, or `head_diversity(on='positions')`.

  Its weight and fields that have their default are left out.
  """
  return auxiliary_losses.label(loss, without=("weight",))


@dataclasses.dataclass(frozen=True)
class Terms:
  """Auxiliary losses that are added to the cross-entropy.

  >>> Terms((auxiliary_losses.build("z_loss"),)).reads
  ('log_z',)
  """

  losses: tuple[AuxiliaryLoss, ...]

  @property
  def reads(self) -> tuple[str, ...]:
    """Places of the arrays that are read."""
    return tuple(sorted({place for loss in self.losses for place in loss.places}))

  @property
  def places(self) -> tuple[str, ...]:
    """Places that are recorded from the model, as in `capture.run`."""
    return tuple(place for place in self.reads if place not in OF_LOGITS)

  def init(self, key: jax.Array, D: int) -> dict[str, dict[str, dict[str, jax.Array]]]:
    """Returns parameters of the losses, to add to the model's; {}: there are none.

    key   of their random numbers
    D     width of the model's last layer
    """
    own = {auxiliary_losses.name_of(loss): loss.init(key, D) for loss in self.losses}
    own = {name: params for name, params in own.items() if params}
    return {PARAMS: own} if own else {}

  def of_logits(
    self, x_BLD: jax.Array, output_VD: jax.Array, n: int
  ) -> dict[str, dict[str, Any]]:
    """Returns {place: {path: array}} of the logits x @ output^T, if any is read.

    n   chunks that they are computed in
    """
    found: dict[str, dict[str, Any]] = {}
    if LOG_Z in self.reads:
      found[LOG_Z] = {"output": chunked_log_z(x_BLD, output_VD, n)}
    if HIDDEN in self.reads:
      found[HIDDEN] = {"output": Hidden(x_BLD, output_VD, n)}
    return found

  def __call__(
    self,
    captured: Mapping[str, Mapping[str, Any]],
    batch: Batch,
    counts: Mapping[str, jax.Array],
    params: Mapping[str, Any],
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns the weighted sum, 0 without a target; and each loss, as metrics.

    captured   {place: {path: array}} of all that is read
    batch      the batch, or a part of it
    counts     sums of the whole batch's weights
    params     of the model, with those of the losses
    """
    own = params.get(PARAMS, {})

    def value(loss: AuxiliaryLoss) -> jax.Array:
      params = own.get(auxiliary_losses.name_of(loss), {})
      return loss.loss(TrainingPass(captured, batch, counts, params))

    values = {AUXILIARY + name_of(loss): value(loss) for loss in self.losses}
    weighted = (
      loss.weight * x for loss, x in zip(self.losses, values.values(), strict=True)
    )
    return jnp.where(counts[TARGETS] > 0, sum(weighted), 0.0), values


def without_auxiliary(params: Any) -> Any:
  """Returns the parameters of a model alone, without those of auxiliary losses."""
  if not isinstance(params, Mapping) or PARAMS not in params:
    return params
  return {name: x for name, x in params.items() if name != PARAMS}
