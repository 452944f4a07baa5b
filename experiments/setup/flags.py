"""Command line of run and sweep: --config, --workdir and any key of the config.

Every mistake gets one line with the nearest correct name, and exit code 2, before any
slow import.
"""

import dataclasses
import functools
import re
import shlex
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags as absl_flags
from ml_collections import ConfigDict
from ml_collections.config_flags import config_flags

from experiments.setup import config_file
from experiments.setup.config_file import DEFAULT, short
from experiments.setup.plan import Plan
from experiments.setup.tuning import Tune, parsed
from experiments.setup.validate import (
  ConfigError,
  flatten,
  offer,
  resolve,
  seed_range,
  spellings,
  unknown_key,
  wanted,
)
from transformer_jax import command as front
from transformer_jax.spec import SpecError, trust

ALLOW = (
  "Classes that a run's folder may name besides registered ones, as in"
  " --allow=my_file:MyEncoding; importing my_file executes it. Classes named on the"
  " command line or in the config file are allowed."
)

absl_flags.disclaim_key_flags()  # --help lists them under the command itself


@dataclasses.dataclass(frozen=True)
class Request:
  """A parsed command line.

  path        the config file
  base        its config
  overrides   {flat key: value} from flags, which win
  plan        the config file's plan, by `plan_name`; None: it has none
  workdir     folder of the runs and the report
  dry_run     train nothing
  retry       also start runs whose process crashed repeatedly
  compile     in a dry run: read the data and compile
  plan_name   function of the config file that returns the plan
  groups      groups of the plan to run; (): all
  workers     processes that share the runs; 0: one for each core
  cores       CPU cores of each run; 0: one, or one for each device of its mesh
  allow       classes that train.init_from's config may name besides registered ones
  searched    words of --tune

  >>> from ml_collections import ConfigDict
  >>> rest = {"plan": None, "workdir": Path("runs"), "dry_run": False, "retry": False}
  >>> request = Request(Path("my.py"), ConfigDict(), {"train.steps": 50}, **rest)
  >>> request.command("run")
  'python -m experiments.run --config=my.py --config.train.steps=50'
  """

  path: Path
  base: ConfigDict
  overrides: Mapping[str, Any]
  plan: Plan | None
  workdir: Path
  dry_run: bool
  retry: bool
  compile: bool = False
  plan_name: str = "sweep"
  groups: tuple[str, ...] = ()
  workers: int = 1
  cores: int = 0
  allow: tuple[str, ...] = ()
  searched: tuple[str, ...] = ()

  @property
  def tune(self) -> Tune | None:
    """Returns the search of the command line, None without any; raises ConfigError."""
    return parsed(self.searched)

  def command(self, tool: str, workdir: bool = False) -> str:
    """Returns the shell command of the same request.

    tool      command of this package, as in "sweep"
    workdir   include --workdir, and --workers if they were chosen
    """
    flags = {} if self.plan_name == "sweep" else {"plan": self.plan_name}
    flags |= {"groups": ",".join(self.groups)} if self.groups else {}
    flags |= {"cores": str(self.cores)} if self.cores else {}
    flags |= {"workers": str(self.workers)} if self.workers and workdir else {}
    flags |= {"allow": ",".join(self.allow)} if self.allow else {}
    folder = self.workdir if workdir else None
    words = [("tune", word) for word in self.searched]
    return command(
      tool, self.path, self.overrides, workdir=folder, flags=[*flags.items(), *words]
    )

  @property
  def config(self) -> ConfigDict:
    """Returns the config file's config with the overrides."""
    return resolve(self.base, self.overrides)


def define(argv: list[str], values: absl_flags.FlagValues = absl_flags.FLAGS) -> None:
  """Defines the flags, with `--config.key=value` for every key of the config.

  argv     command line, in which config_flags reads --config.key
  values   where they are defined
  """
  names = ", ".join(path.stem for path in config_file.ready())
  config_flags.DEFINE_config_file(
    "config",
    None,
    f"A config file, default {short(DEFAULT)}; beside it: {names}. Any key can be set"
    " too, for example --config.model.position='rope(base=5e5)'.",
    flag_values=values,
    sys_argv=argv,
  )
  _define_work(values)
  _define_modes(values)


def _define_work(values: absl_flags.FlagValues) -> None:
  """Defines the flags for the runs that a command works on, and their folder."""
  absl_flags.DEFINE_string(
    "workdir",
    None,
    "Folder of the runs and the report; default runs/NAME_OF_CONFIG.",
    flag_values=values,
  )
  absl_flags.DEFINE_string(
    "plan",
    "sweep",
    "Function of the config file that returns the plan, as in --plan=paper.",
    flag_values=values,
  )
  absl_flags.DEFINE_list(
    "groups",
    [],
    "Groups of the plan to run, as in --groups=copy,sort; default all. Several"
    " commands with one workdir share the work.",
    flag_values=values,
  )
  absl_flags.DEFINE_multi_string(
    "tune",
    None,
    "Values of a key that a sweep tries for every variant first, on the validation"
    " split, as in --tune='train.optimizer.lr=(1e-3, 3e-3, 1e-2)'; may be repeated.",
    flag_values=values,
  )
  absl_flags.DEFINE_list("allow", [], ALLOW, flag_values=values)
  absl_flags.DEFINE_integer(
    "workers",
    0,
    "Processes that share the runs of a sweep on a CPU; default one for each core, or"
    " for each --cores of them. 1: one run after another in this process.",
    lower_bound=0,
    flag_values=values,
  )
  absl_flags.DEFINE_integer(
    "cores",
    0,
    "CPU cores of each run; default one, or one for each device of the mesh. More make"
    " a large run faster, change last digits, and are compared with their like alone.",
    lower_bound=0,
    flag_values=values,
  )


def _define_modes(values: absl_flags.FlagValues) -> None:
  """Defines the flags that change what is done with the runs."""
  absl_flags.DEFINE_bool(
    "dry_run",
    False,
    "Print configs, parameters, FLOPs and attention cores; train nothing.",
    flag_values=values,
  )
  absl_flags.DEFINE_bool(
    "compile",
    False,
    "With --dry_run: read the data, compile each program and print its peak memory.",
    flag_values=values,
  )
  absl_flags.DEFINE_bool(
    "retry",
    False,
    "Also start runs again whose process crashed repeatedly.",
    flag_values=values,
  )


def start(main: Callable[[Request], int]) -> None:
  """Runs a command: bad input ends it with one line and exit code 2."""
  front.make_printable()
  argv = front.guarded(lambda: config_first(sys.argv), (ConfigError,))
  define(argv)
  keys = functools.partial(config_file.keys_help, argv[1])
  front.run(main, (ConfigError,), argv, parse, more_help=keys)


def config_first(argv: Sequence[str]) -> list[str]:
  """Returns the words with --config=FILE first: config_flags reads it before keys."""
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


def parse(
  argv: Sequence[str], values: absl_flags.FlagValues = absl_flags.FLAGS
) -> Request:
  """Returns the request of a command line with the config first; raises ConfigError."""
  path = config_file.find(argv[1].removeprefix("--config="))
  module = config_file.load(path)
  base = module.get_config()
  keys = flatten(base)
  argv = list(map(_with_seeds, argv))
  _check_names(argv, keys, values)
  try:
    left = values(argv)[1:]
  except absl_flags.Error as error:
    raise ConfigError(_plain(error, keys, values)) from error
  if left:
    raise ConfigError(f"'{left[0]}' is no flag; write --name=value, no space around =")
  overrides = dict(config_flags.get_override_values(values["config"]))
  resolve(base, overrides)  # absl lets None and mixed tuples through
  return Request(
    path=path,
    base=base,
    overrides=overrides,
    plan=config_file.plan(module, path, values.plan),
    workdir=Path(
      values.workdir or Path("runs") / config_file.folder(path, values.plan)
    ),
    dry_run=values.dry_run,
    retry=values.retry,
    compile=values.compile,
    plan_name=values.plan,
    groups=tuple(values.groups),
    workers=values.workers,
    cores=values.cores,
    allow=_allowed(values.allow),
    searched=tuple(values.tune or ()),
  )


def _with_seeds(word: str) -> str:
  """Returns a word of the command line with a range of seeds as a tuple.

  >>> _with_seeds("--config.seeds=0..2")
  '--config.seeds=(0, 1, 2)'
  """
  match = re.fullmatch(r"(--?config\.seeds=)(.*)", word)
  return f"{match[1]}{seed_range(match[2])}" if match else word


def _allowed(classes: Sequence[str]) -> tuple[str, ...]:
  try:
    trust(classes)
  except SpecError as error:
    raise ConfigError(str(error)) from error
  return tuple(classes)


def _check_names(
  argv: Sequence[str], keys: Collection[str], values: absl_flags.FlagValues
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
  """Returns a message with the nearest flag, also where only `config.` is missing."""
  known = (
    *("config", "workdir", "plan", "groups", "workers", "cores", "tune", "allow"),
    *("dry_run", "compile", "retry", "help"),
  )
  meant = {short: f"--config.{key}" for short, key in spellings(keys).items()}
  meant |= {f"config.{key}": f"--config.{key}" for key in keys}
  meant |= {flag: f"--{flag}" for flag in known}
  listed = ", ".join(f"--{flag}" for flag in known)
  return f"unknown flag --{name}.{offer(name, meant)} Flags: {listed}, --config.KEY."


def _plain(
  error: absl_flags.Error, keys: Mapping[str, Any], values: absl_flags.FlagValues
) -> str:
  """Rewrites a parsing error of absl as flag, value and the type to write."""
  if match := re.match(r"flag --config\.([\w.]+)=(.*?): ", str(error), re.DOTALL):
    key, value = match.groups()
    return f"--config.{key}={value!r}: {wanted(keys[key])}"
  return front.sentence(error, values)


def command(
  tool: str,
  path: Path,
  overrides: Mapping[str, Any],
  workdir: Path | None = None,
  flags: Iterable[tuple[str, str]] = (),
) -> str:
  """Returns the shell command of a config.

  tool        command of this package, as in "sweep"
  path        the config file
  overrides   {flat key: value}
  workdir     value of --workdir; None: the default
  flags       (name, value) of further flags
  """
  words = ["python", "-m", f"experiments.{tool}", f"--config={short(path)}"]
  words += [f"--workdir={workdir}"] if workdir else []
  words += [f"--{name}={value}" for name, value in flags]
  words += [f"--config.{key}={value}" for key, value in overrides.items()]
  return shlex.join(words)
