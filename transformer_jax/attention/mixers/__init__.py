"""Mixers: layers that keep a state of fixed size, instead of all keys and values."""

import importlib
import pkgutil

from transformer_jax.attention.mixers.base import Mixer as Mixer
from transformer_jax.attention.mixers.base import StateCache as StateCache

for _module in pkgutil.iter_modules(__path__):  # each registers its mixers
  importlib.import_module(f"{__name__}.{_module.name}")
