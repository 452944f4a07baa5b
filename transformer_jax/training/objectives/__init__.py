"""Objectives of training, one file each; importing the package registers them all."""

import importlib
import pkgutil

from transformer_jax.training.objectives.base import (
  Objective,
  objective_of,
  objectives,
  output_size,
)

for _module in pkgutil.iter_modules(__path__):
  importlib.import_module(f"{__name__}.{_module.name}")

CROSS_ENTROPY = objectives.build("cross_entropy")  # of functions without a task

__all__ = ["CROSS_ENTROPY", "Objective", "objective_of", "objectives", "output_size"]
