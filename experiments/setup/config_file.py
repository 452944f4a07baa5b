"""Config files: finding them, reading them, and what plans they define."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

from experiments.setup.plan import Plan
from experiments.setup.validate import ConfigError, flatten, offer
from transformer_jax.spec import nearest

CONFIGS = Path(__file__).parents[1] / "configs"
DEFAULT = CONFIGS / "quickstart.py"


def find(name: str) -> Path:
  """Returns the path of a config file, or of the ready one of this name.

  Raises ConfigError with the ready ones.
  """
  path = Path(name)
  if not path.is_file():
    stems = {config.stem: short(config) for config in ready()}
    if name in stems:
      return Path(stems[name])
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


def keys_help(flag: str) -> str:
  """Returns every key of a config with its value and its comment in configs/base.py.

  flag   the config file as the command line names it: --config=FILE
  """
  path = find(flag.removeprefix("--config="))
  values = flatten(load(path).get_config())
  lines = [f"Keys of the config, set by --config.KEY=VALUE; values of {short(path)}:"]
  for key, comment in _comments().items():
    setting = f"  {key} = {values[key]!r}"
    lines.append(f"{setting:<46}  {comment}".rstrip())
  return "\n".join(lines)


def _comments() -> dict[str, str]:
  """Returns {key: comment}, from the lines of configs/base.py that set a key."""
  line = re.compile(
    r"  (?:config\.)?([\w.]+) = (?!.*ConfigDict)[^#]*(?:#(?P<why>.*))?$"
  )
  text = (CONFIGS / "base.py").read_text().splitlines()
  found = [match for match in map(line.match, text) if match]
  return {match[1]: (match["why"] or "").strip() for match in found}


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
    return _checked(module.sweep(), which, path) if hasattr(module, which) else None
  makes = [
    name
    for name, made in vars(module).items()
    if getattr(made, "__annotations__", {}).get("return") is Plan
  ]
  if which in makes:
    return _checked(getattr(module, which)(), which, path)
  has = f"It has {', '.join(makes)}." if makes else "It has none."
  raise ConfigError(
    f"--plan={which}: {short(path)} has no such plan.{nearest(which, makes)} {has}"
  )


def _checked(made: Any, which: str, path: Path) -> Plan:
  """Returns the plan; raises ConfigError unless it is one and has runs."""
  if not isinstance(made, Plan):
    raise ConfigError(
      f"{which}() of {short(path)} returns {made!r}; return a Plan of"
      " experiments/setup/plan.py, as in experiments/configs/quickstart.py"
    )
  if not [*made.runs]:
    raise ConfigError(
      f"{which}() of {short(path)} has no runs; give its Plan at least one,"
      " such as Grid({'model.position': ('none', 'rope')})"
    )
  return made


def folder(path: Path, which: str) -> str:
  """Returns the name of the folder that the runs of a plan go to."""
  return path.stem if which == "sweep" else f"{path.stem}-{which}"
