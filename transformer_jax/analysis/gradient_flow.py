"""Norms of gradients: of each layer's parameters, and of each token by distance.

Xiong et al., 2020, figure 3 (by layer), https://arxiv.org/abs/2002.04745; Bengio et
al., 1994 (by distance in time), https://doi.org/10.1109/72.279181.
"""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from transformer_jax.data.base import Batch
from transformer_jax.models import Transformer, capture
from transformer_jax.training.objectives import CROSS_ENTROPY, Objective
from transformer_jax.training.step import State, Trainer
from transformer_jax.training.step_metrics.tree_norms import norms

LAYER = re.compile(r"/layer_\d+")

Measured = Callable[[Trainer, State, Batch], dict[str, jax.Array]]


def by_layer(trainer: Trainer, state: State, batch: Batch) -> dict[str, jax.Array]:
  """Returns {"decoder/layer_0": x, ...}: norms of the gradients of layers' parameters.

  Of the training loss, with its dropout and, in batch norm, its statistics.

  trainer   of the model and its loss
  state     of one seed; its parameters are differentiated
  batch     of its task
  """
  grads = jax.grad(lambda params: trainer.loss(params, batch, state)[0])(state.params)
  paths = norms(grads, by_layer=True)
  return capture.in_order({path: x for path, x in paths.items() if LAYER.search(path)})


def by_distance(trainer: Trainer, state: State, batch: Batch) -> dict[str, jax.Array]:
  """Returns {"0": x, "1": x, ...}: gradients' norms by distance from the last target.

  Of the loss of a text's last target, by the embedded token so many places
  before it, as a mean over texts; NaN at a distance that no text has.

  trainer   of the model
  state     of one seed
  batch     of its task
  """
  norm_BL = distance_norms(trainer.model, state.params, batch, trainer.objective)
  return {str(n): jnp.nanmean(norm_B) for n, norm_B in enumerate(norm_BL.T)}


def distance_norms(
  model: Transformer, params: Any, batch: Batch, objective: Objective = CROSS_ENTROPY
) -> jax.Array:
  """Returns norm_BL, of a text's loss at its last target by each token before it.

  Place n of the second axis is the token n places before the last one with a target,
  or NaN where there is none. Without dropout.

  model       reads tokens
  params      its parameters
  batch       texts with targets
  objective   whose loss it is
  """
  L = batch.target_BL.shape[1]
  place_L = jnp.arange(L)
  last_B1 = jnp.max(jnp.where(batch.weight_BL > 0, place_L, -1), axis=1, keepdims=True)

  def loss(logits_BLV: jax.Array) -> jax.Array:
    loss_BL, _ = objective.losses(logits_BLV, batch.target_BL, batch.weight_BL)
    return jnp.sum(jnp.where(place_L == last_B1, loss_BL, 0.0))

  arch = model.arch
  stack = "decoder" if arch.decoders else "encoder"
  found = capture.gradients(loss, model, params, *batch.reads, want=("state",))
  grad_BLD = found["state"][f"{stack}/embedding"].astype(jnp.float32)
  norm_BL = jnp.linalg.norm(grad_BLD, axis=-1)
  source_BL = last_B1 - place_L
  norm_BL = jnp.take_along_axis(norm_BL, jnp.maximum(source_BL, 0), axis=1)
  real_BL = jnp.broadcast_to(batch.at.real_BL, norm_BL.shape)
  real_BL = jnp.take_along_axis(real_BL, jnp.maximum(source_BL, 0), axis=1)
  return jnp.where((source_BL >= 0) & real_BL, norm_BL, jnp.nan)


BY: dict[str, Measured] = {"layer": by_layer, "distance": by_distance}
