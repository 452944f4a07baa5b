"""Attention variants, one file each; importing the package registers them all."""

import importlib
import pkgutil

from transformer_jax.attention.variants.base import Variant, attentions
from transformer_jax.attention.variants.bound_variant import PLAIN, BoundVariant

for _module in pkgutil.iter_modules(__path__):
  importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["PLAIN", "BoundVariant", "Variant", "attentions"]
