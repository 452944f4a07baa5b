"""Attention cores, one file each; importing the package registers them all."""

import importlib
import pkgutil

from transformer_jax.attention.base import Core, cores

for _module in pkgutil.iter_modules(__path__):
  importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["Core", "cores"]
