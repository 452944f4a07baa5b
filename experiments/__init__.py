"""Research questions as plans: sweeps, runs and their reports.

`load_run` and `load_sweep` give finished ones to Python. They are imported when they
are first used, so that a command starts at once.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from experiments.analysis import load_run as load_run
  from experiments.analysis import load_sweep as load_sweep

__all__ = ["load_run", "load_sweep"]


def __getattr__(name: str) -> Any:
  """Imports a public name when it is first used."""
  if name not in __all__:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  return getattr(importlib.import_module("experiments.analysis"), name)
