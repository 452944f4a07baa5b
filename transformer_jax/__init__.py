"""Transformers in JAX whose positional encodings are values you can compare.

import transformer_jax as tj
arch = tj.Architecture(tj.Dims(V=256, D=64, H=4, F=256, L=128), "rope", decoders=2)
model = tj.Transformer(arch)

Names are imported when they are first used, so that importing the package is cheap.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

# Name -> its module and name there. `__init__.pyi` has the same for type checkers.
_NAMES = {
  "Architecture": "models:Architecture",
  "Coords": "positions:Coords",
  "Core": "attention.cores:Core",
  "Dims": "axes:Dims",
  "PositionalEncoding": "positions:PositionalEncoding",
  "SpecError": "spec:SpecError",
  "Task": "data.base:Task",
  "Transformer": "models:Transformer",
  "Variant": "attention:Variant",
  "attention": "attention",
  "attentions": "attention:attentions",
  "cores": "attention.cores:cores",
  "data": "data",
  "empty_cache": "models:empty_cache",
  "evaluation": "evaluation",
  "greedy": "evaluation.decode:greedy",
  "interop": "interop",
  "load_pretrained": "interop:load",
  "models": "models",
  "positions": "positions",
  "sample": "evaluation.decode:sample",
  "save_pretrained": "interop:save",
  "tasks": "data.base:tasks",
  "training": "training",
}

__all__ = list(_NAMES)


def __getattr__(name: str) -> Any:
  """Imports a public name when it is first used."""
  if name not in _NAMES:
    from transformer_jax.spec import nearest

    near = nearest(name, _NAMES)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}.{near}")
  path, _, attribute = _NAMES[name].partition(":")
  module = importlib.import_module(f"{__name__}.{path}")
  globals()[name] = getattr(module, attribute) if attribute else module
  return globals()[name]


def __dir__() -> list[str]:
  return sorted([*__all__, "__version__"])
