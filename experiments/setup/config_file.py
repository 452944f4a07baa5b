"""Config files and the plans that they define."""

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
  """Returns the path of a config file, given its path or a shipped one's name.

  Raises ConfigError with the names of those that are shipped.
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
  """Returns a path relative to the working directory, if it is below it."""
  path = path.absolute()
  return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def keys_help(flag: str) -> str:
  """Returns a line for each key of a config: value, and comment in configs/base.py.

  flag   --config=FILE
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
    r"  (?:config\.)?([\w.]+) = (?!.*ConfigDict)[^#]*(?:#(?P<comment>.*))?$"
  )
  text = (CONFIGS / "base.py").read_text().splitlines()
  matches = [match for match in map(line.match, text) if match]
  return {match[1]: (match["comment"] or "").strip() for match in matches}


def load(path: Path) -> ModuleType:
  """Runs a config file and returns it as a module; raises ConfigError."""
  spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
  if spec is None or spec.loader is None:
    raise ConfigError(f"--config={path}: write the path of a Python file, *.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  if not hasattr(module, "get_config"):
    raise ConfigError(f"--config={path}: the file defines no get_config()")
  return module


def plan(module: ModuleType, path: Path, name: str) -> Plan | None:
  """Returns a config file's plan; None where it has none named `sweep`.

  module   the config file, loaded
  path     of the config file, for messages
  name     function that returns the plan

  Raises ConfigError where another name is missing, or the plan has no runs.
  """
  if name == "sweep":
    return _checked(module.sweep(), name, path) if hasattr(module, name) else None
  names = [
    function
    for function, value in vars(module).items()
    if getattr(value, "__annotations__", {}).get("return") is Plan
  ]
  if name in names:
    return _checked(getattr(module, name)(), name, path)
  offer = f"It has {', '.join(names)}." if names else "It has none."
  raise ConfigError(
    f"--plan={name}: {short(path)} has no such plan.{nearest(name, names)} {offer}"
  )


def _checked(value: Any, name: str, path: Path) -> Plan:
  """Returns the value; raises ConfigError unless it is a plan with runs."""
  if not isinstance(value, Plan):
    raise ConfigError(
      f"{name}() of {short(path)} returns {value!r}; return a Plan of"
      " experiments/setup/plan.py, as in experiments/configs/quickstart.py"
    )
  if not [*value.runs]:
    raise ConfigError(
      f"{name}() of {short(path)} has no runs; give its Plan at least one,"
      " such as Grid({'model.position': ('none', 'rope')})"
    )
  return value


def folder(path: Path, name: str) -> str:
  """Returns the folder of a plan's runs, by the plan's name, below runs/."""
  return path.stem if name == "sweep" else f"{path.stem}-{name}"
