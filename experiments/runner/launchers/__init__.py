"""Launchers by name: each file of this folder registers one."""

import importlib
import pkgutil

from experiments.runner.launchers.base import Launcher, Loop, SweepWork, launchers
from experiments.setup.validate import ConfigError
from transformer_jax.spec import SpecError

__all__ = ["Launcher", "Loop", "SweepWork", "launcher_of", "launchers"]

for _file in pkgutil.iter_modules(__path__):
  importlib.import_module(f"{__name__}.{_file.name}")


def launcher_of(spec: str) -> Launcher:
  """Returns the launcher of --launcher; raises ConfigError.

  >>> type(launcher_of("local")).__name__
  'Local'
  """
  try:
    launcher: Launcher = launchers.build(spec)
  except SpecError as error:
    raise ConfigError(f"--launcher: {error}") from error
  return launcher
