"""Attention cores and variants, one file each; importing registers them all."""

import importlib
import pkgutil

from transformer_jax.attention.base import Core, Dropout, cores
from transformer_jax.attention.rule import PLAIN, Rule
from transformer_jax.attention.variant import Variant, attentions

for _module in pkgutil.iter_modules(__path__):
  importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["PLAIN", "Core", "Dropout", "Rule", "Variant", "attentions", "cores"]
