"""Auxiliary losses, one file each; importing the package registers them all."""

import importlib
import pkgutil

from transformer_jax.training.auxiliary.base import AuxiliaryLoss, auxiliary_losses
from transformer_jax.training.auxiliary.training_pass import TrainingPass

for _module in pkgutil.iter_modules(__path__):
  importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["AuxiliaryLoss", "TrainingPass", "auxiliary_losses"]
