"""The command line: --config, --workdir and any key of the config, typed and checked.

Everything wrong with it is said in one line, with the nearest right name, and exit
code 2, before anything heavy is imported.
"""

import dataclasses
import importlib.util
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from absl import app, logging
from absl import flags as absl_flags
from ml_collections import ConfigDict
from ml_collections.config_flags import config_flags

from experiments.config import (
  ConfigError,
  flatten,
  offer,
  resolve,
  spellings,
  unknown_key,
  wanted,
)
from experiments.plan import Plan

CONFIGS = Path(__file__).parent / "configs"
DEFAULT = CONFIGS / "quickstart.py"
BAD_INPUT, INTERRUPTED = 2, 130  # exit codes

absl_flags.disclaim_key_flags()  # --help lists them under the command itself


@dataclasses.dataclass(frozen=True)
class Request:
  """What the command line asks for.

  path        the config file
  base        what it says
  overrides   flat keys from flags, which win
  plan        its sweep(), or None
  """

  path: Path
  base: ConfigDict
  overrides: Mapping[str, Any]
  plan: Plan | None
  workdir: Path
  dry_run: bool
  retry: bool

  @property
  def config(self) -> ConfigDict:
    """Returns the config file with the flags."""
    return resolve(self.base, self.overrides)


def define(argv: list[str], values: absl_flags.FlagValues = absl_flags.FLAGS) -> None:
  """Defines the flags; `--config.key=value` exists for every key of the config.

  argv   where config_flags will look for --config.key
  """
  names = ", ".join(path.stem for path in _configs())
  config_flags.DEFINE_config_file(
    "config",
    None,
    f"A config file, default {short(DEFAULT)}; beside it: {names}. Any key can be set"
    " too, for example --config.model.position='rope(base=5e5)'.",
    flag_values=values,
    sys_argv=argv,
  )
  absl_flags.DEFINE_string(
    "workdir",
    None,
    "Folder of the runs and the report; default runs/NAME_OF_CONFIG.",
    flag_values=values,
  )
  absl_flags.DEFINE_bool(
    "dry_run",
    False,
    "Print configs, parameters, FLOPs, memory and kernels; train nothing.",
    flag_values=values,
  )
  absl_flags.DEFINE_bool(
    "retry",
    False,
    "Also start runs again that were given up because their process kept dying.",
    flag_values=values,
  )


def start(main: Callable[[Request], int]) -> None:
  """Runs a command: bad input ends it with one line and exit code 2."""
  argv = _guarded(lambda: config_first(sys.argv))
  define(argv)

  def run(request: Request) -> int:
    if not absl_flags.FLAGS["verbosity"].present:
      logging.set_verbosity(logging.WARNING)  # JAX informs about absent hardware
    return _guarded(lambda: main(request))

  app.run(run, argv=argv, flags_parser=lambda words: _guarded(lambda: parse(words)))


def config_first(argv: Sequence[str]) -> list[str]:
  """Puts --config=FILE before all else: config_flags reads it before its keys."""
  try:
    words = iter(absl_flags.FLAGS.read_flags_from_files(argv[1:], force_gnu=False))
  except absl_flags.Error as error:
    raise ConfigError(str(error)) from error
  path, rest = str(DEFAULT), []
  for word in words:
    if re.fullmatch(r"--?config", word):
      path = next(words, "")
    elif match := re.match(r"--?config=", word):
      path = word[match.end() :]
    else:
      rest.append(word)
  return [argv[0], f"--config={path}", *rest]


def _guarded(call: Callable[[], Any]) -> Any:
  try:
    return call()
  except ConfigError as error:
    print(f"error: {error}", file=sys.stderr)
    sys.exit(BAD_INPUT)
  except KeyboardInterrupt:  # before the first run: nothing has to be saved
    sys.exit(INTERRUPTED)


def parse(
  argv: Sequence[str], values: absl_flags.FlagValues = absl_flags.FLAGS
) -> Request:
  """Returns what `argv`, with the config first, asks for; raises ConfigError."""
  path = _existing(argv[1].removeprefix("--config="))
  module = _module(path)
  base = module.get_config()
  keys = flatten(base)
  _check_names(argv, keys, values)
  try:
    left = values(argv)[1:]
  except absl_flags.Error as error:
    raise ConfigError(_plain(str(error), keys)) from error
  if left:
    raise ConfigError(f"'{left[0]}' is no flag; write --name=value, no space around =")
  overrides = dict(values["config"].override_values)
  resolve(base, overrides)  # absl lets None and mixed tuples through
  return Request(
    path=path,
    base=base,
    overrides=overrides,
    plan=module.sweep() if hasattr(module, "sweep") else None,
    workdir=Path(values["workdir"].value or Path("runs") / path.stem),
    dry_run=values["dry_run"].value,
    retry=values["retry"].value,
  )


def _existing(name: str) -> Path:
  path = Path(name)
  if not path.is_file():
    stems = {config.stem: short(config) for config in _configs()}
    raise ConfigError(
      f"--config={name}: there is no such file.{offer(path.stem, stems)}"
      f" Ready ones: {', '.join(stems.values())}."
    )
  return path


def _configs() -> list[Path]:
  return sorted(set(CONFIGS.glob("*.py")) - {CONFIGS / "__init__.py"})


def short(path: Path) -> str:
  """Returns the path from here when it is below here."""
  path = path.absolute()
  return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _module(path: Path) -> ModuleType:
  spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
  if spec is None or spec.loader is None:
    raise ConfigError(f"--config={path}: write the path of a Python file, *.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  if not hasattr(module, "get_config"):
    raise ConfigError(f"--config={path}: the file defines no get_config()")
  return module


def _check_names(
  argv: Sequence[str], keys: Sequence[str], values: absl_flags.FlagValues
) -> None:
  """Raises ConfigError with every flag that does not exist."""
  problems = []
  for word in argv[1:]:
    match = re.match(r"--?(no)?(config\.)?(?P<key>[A-Za-z_][\w.-]*)", word)
    if match and match[2]:
      key = match["key"]
      problems += [] if key in keys else [f"--config.{key}: {unknown_key(key, keys)}"]
    elif match and not {match["key"], f"{match[1]}{match['key']}"} & {*values}:
      problems.append(_unknown_flag(f"{match[1] or ''}{match['key']}", keys))
  if problems:
    raise ConfigError(*problems)


def _unknown_flag(name: str, keys: Iterable[str]) -> str:
  """Offers the nearest flag, also where only `config.` or the group is missing."""
  known = ("config", "workdir", "dry_run", "retry", "help")
  meant = {short: f"--config.{key}" for short, key in spellings(keys).items()}
  meant |= {f"config.{key}": f"--config.{key}" for key in keys}
  meant |= {flag: f"--{flag}" for flag in known}
  listed = ", ".join(f"--{flag}" for flag in known)
  return f"unknown flag --{name}.{offer(name, meant)} Flags: {listed}, --config.KEY."


def _plain(message: str, keys: Mapping[str, Any]) -> str:
  """Rewrites a parsing error of absl: which flag, which value, what to write."""
  if match := re.match(r"flag --config\.([\w.]+)=(.*?): ", message, re.DOTALL):
    key, value = match.groups()
    return f"--config.{key}={value!r}: {wanted(keys[key])}"
  return " ".join(message.split())


def command(
  tool: str, path: Path, overrides: Mapping[str, Any], workdir: Path | None = None
) -> str:
  """Returns the shell command that asks for this config."""
  words = ["python", "-m", f"experiments.{tool}", f"--config={short(path)}"]
  words += [f"--workdir={workdir}"] if workdir else []
  words += [f"--config.{key}={value}" for key, value in overrides.items()]
  return shlex.join(words)
