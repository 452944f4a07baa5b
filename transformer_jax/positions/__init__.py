"""Positional encodings, one file each; importing the package registers them all.

`build("rope(base=5e5)")` makes one; the registry `positions` has the names.
"""

import importlib
import pkgutil

from transformer_jax.positions.base import (
  PositionalEncoding,
  Tile,
  TrainContext,
  positions,
)
from transformer_jax.positions.bound import Bound, bind
from transformer_jax.positions.coords import Coords

for _module in pkgutil.iter_modules(__path__):
  importlib.import_module(f"{__name__}.{_module.name}")

build, register = positions.build, positions.register

__all__ = [
  "Bound",
  "Coords",
  "TrainContext",
  "PositionalEncoding",
  "Tile",
  "bind",
  "build",
  "positions",
  "register",
]
