"""Registries of the specs in a config, by key."""

import functools
from typing import Any

from transformer_jax.spec import Registry


@functools.cache
def registries() -> dict[str, Registry]:
  """Returns {key: registry of its specs}.

  The imports are here since they import JAX: a mistyped flag is refused without them.
  """
  import transformer_jax.data  # noqa: F401, fills the registry of tasks
  from transformer_jax.analysis import head_measure  # noqa: F401, is a measure
  from transformer_jax.attention import attentions
  from transformer_jax.attention.cores import cores
  from transformer_jax.data.base import tasks
  from transformer_jax.evaluation import answer_measure  # noqa: F401, is a measure
  from transformer_jax.evaluation.beam import penalties
  from transformer_jax.evaluation.measures import measures
  from transformer_jax.models import families
  from transformer_jax.models.canon import convolutions
  from transformer_jax.models.embeddings import embeddings
  from transformer_jax.models.feature_norms import norms
  from transformer_jax.models.feedforward_kinds import feedforwards
  from transformer_jax.models.heads import heads
  from transformer_jax.models.layers import activations
  from transformer_jax.models.residual import placements
  from transformer_jax.positions import positions
  from transformer_jax.training.auxiliary import auxiliary_losses
  from transformer_jax.training.optimizers import optimizers, schedules
  from transformer_jax.training.step_metrics import step_metrics

  return {
    "task": tasks,
    "model.family": families,
    "model.position": positions,
    "model.attention": attentions,
    "model.core": cores,
    "model.activation": activations,
    "model.norm": norms,
    "model.norm_placement": placements,
    "model.feedforward_kind": feedforwards,
    "model.convolution": convolutions,
    "model.embedding": embeddings,
    "model.head": heads,
    "train.optimizer": optimizers,
    "train.schedule": schedules,
    "train.metrics": step_metrics,
    "train.auxiliary": auxiliary_losses,
    "evaluate.penalty": penalties,
    "evaluate.measures": measures,
  }


def specs(value: Any) -> tuple[Any, ...]:
  """Returns the specs in the value of a key: some keys take several."""
  return tuple(value) if isinstance(value, tuple | list) else (value,)
