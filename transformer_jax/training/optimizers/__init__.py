"""Optimizers and learning-rate schedules from Optax, by spec string, one file each.

Importing the package registers them all.
"""

import importlib
import pkgutil

import optax

from transformer_jax.training.optimizers.base import (
  LearningRate,
  Optimizer,
  optimizers,
  schedules,
)
from transformer_jax.training.optimizers.matrices import is_matrix

for _module in pkgutil.iter_modules(__path__):
  importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["LearningRate", "Optimizer", "build", "is_matrix", "optimizers", "schedules"]


def build(optimizer, schedule, clip: float, steps: int, D: int):
  """Returns (gradient transformation, learning rate by step).

  optimizer   an `Optimizer` or its spec
  schedule    a `LearningRate` or its spec
  clip        largest global norm of the gradients; 0: no clipping
  steps       steps of the whole training
  D           width of the model, for schedules that depend on it
  """
  optimizer, schedule = optimizers.build(optimizer), schedules.build(schedule)
  rate = schedule.build(optimizer.lr, steps, D)
  parts = [optax.clip_by_global_norm(clip)] if clip else []
  return optax.chain(*parts, optimizer.build(rate)), rate
