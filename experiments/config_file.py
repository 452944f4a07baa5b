"""Config files: finding them, reading them, and what plans they define."""

import importlib.util
from pathlib import Path
from types import ModuleType

from experiments.config import ConfigError, offer
from experiments.plan import Plan
from transformer_jax.spec import nearest

CONFIGS = Path(__file__).parent / "configs"
DEFAULT = CONFIGS / "quickstart.py"


def find(name: str) -> Path:
  """Returns the path of a config file; raises ConfigError with the ready ones."""
  path = Path(name)
  if not path.is_file():
    stems = {config.stem: short(config) for config in ready()}
    raise ConfigError(
      f"--config={name}: there is no such file.{offer(path.stem, stems)}"
      f" Ready ones: {', '.join(stems.values())}."
    )
  return path


def ready() -> list[Path]:
  """Returns the config files that come with the project."""
  return sorted(set(CONFIGS.glob("*.py")) - {CONFIGS / "__init__.py"})


def short(path: Path) -> str:
  """Returns the path from here when it is below here."""
  path = path.absolute()
  return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def load(path: Path) -> ModuleType:
  """Runs a config file and returns it as a module."""
  spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
  if spec is None or spec.loader is None:
    raise ConfigError(f"--config={path}: write the path of a Python file, *.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  if not hasattr(module, "get_config"):
    raise ConfigError(f"--config={path}: the file defines no get_config()")
  return module


def plan(module: ModuleType, path: Path, which: str) -> Plan | None:
  """Returns the plan that a function of the config file makes; `sweep` may lack."""
  if which == "sweep":
    return module.sweep() if hasattr(module, "sweep") else None
  makes = [
    name
    for name, made in vars(module).items()
    if getattr(made, "__annotations__", {}).get("return") is Plan
  ]
  if which in makes:
    return getattr(module, which)()
  has = f"It has {', '.join(makes)}." if makes else "It has none."
  raise ConfigError(
    f"--plan={which}: {short(path)} has no such plan.{nearest(which, makes)} {has}"
  )


def folder(path: Path, which: str) -> str:
  """Returns the name of the folder that the runs of a plan go to."""
  return path.stem if which == "sweep" else f"{path.stem}-{which}"
