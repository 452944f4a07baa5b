"""Attention cores: how attention is computed; importing registers them all."""

import importlib
import pkgutil

from transformer_jax.attention.cores.base import Core, cores
from transformer_jax.attention.cores.context import Context
from transformer_jax.attention.cores.dropout import KeyedDropout

for _module in pkgutil.walk_packages(__path__, f"{__name__}."):
  importlib.import_module(_module.name)

__all__ = ["Context", "Core", "KeyedDropout", "cores"]
