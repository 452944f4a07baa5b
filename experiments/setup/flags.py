"""The command line: --config, --workdir and any key of the config, typed and checked.

Everything wrong with it is said in one line, with the nearest right name, and exit
code 2, before anything heavy is imported.
"""

import dataclasses
import functools
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags as absl_flags
from ml_collections import ConfigDict
from ml_collections.config_flags import config_flags

from experiments.setup import config_file
from experiments.setup.config_file import DEFAULT, short
from experiments.setup.plan import Plan
from experiments.setup.validate import (
  ConfigError,
  flatten,
  offer,
  resolve,
  spellings,
  unknown_key,
  wanted,
)
from transformer_jax import command as front
from transformer_jax.spec import SpecError, trust

ALLOW = (
  "Classes that a run's folder may name besides registered ones, as in"
  " --allow=my_file:MyEncoding; importing my_file runs it. Those that the command line"
  " or the config file names are allowed."
)

absl_flags.disclaim_key_flags()  # --help lists them under the command itself


@dataclasses.dataclass(frozen=True)
class Request:
  """What the command line asks for.

  path        the config file
  base        what it says
  overrides   flat keys from flags, which win
  plan        what its sweep() returns, or the function that --plan names; or None
  groups      names of the groups that are asked for; none: all
  allow       classes that train.init_from's config may name besides registered ones
  """

  path: Path
  base: ConfigDict
  overrides: Mapping[str, Any]
  plan: Plan | None
  workdir: Path
  dry_run: bool
  retry: bool
  compile: bool = False
  which: str = "sweep"
  groups: tuple[str, ...] = ()
  allow: tuple[str, ...] = ()

  def command(self, tool: str, workdir: bool = False) -> str:
    """Returns the shell command that asks for the same."""
    where = self.workdir if workdir else None
    own = {} if self.which == "sweep" else {"plan": self.which}
    own |= {"groups": ",".join(self.groups)} if self.groups else {}
    own |= {"allow": ",".join(self.allow)} if self.allow else {}
    return command(tool, self.path, self.overrides, where, own)

  @property
  def config(self) -> ConfigDict:
    """Returns the config file with the flags."""
    return resolve(self.base, self.overrides)


def define(argv: list[str], values: absl_flags.FlagValues = absl_flags.FLAGS) -> None:
  """Defines the flags; `--config.key=value` exists for every key of the config.

  argv   where config_flags will look for --config.key
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
  absl_flags.DEFINE_string(
    "workdir",
    None,
    "Folder of the runs and the report; default runs/NAME_OF_CONFIG.",
    flag_values=values,
  )
  absl_flags.DEFINE_bool(
    "dry_run",
    False,
    "Print configs, parameters, FLOPs and attention cores; train nothing.",
    flag_values=values,
  )
  absl_flags.DEFINE_bool(
    "compile",
    False,
    "With --dry_run: read the data and compile each program, for the memory it takes.",
    flag_values=values,
  )
  absl_flags.DEFINE_bool(
    "retry",
    False,
    "Also start runs again that were given up because their process kept dying.",
    flag_values=values,
  )

  absl_flags.DEFINE_string(
    "plan",
    "sweep",
    "Which function of the config file makes the plan of a sweep, as in --plan=paper.",
    flag_values=values,
  )
  absl_flags.DEFINE_list(
    "groups",
    [],
    "Only these groups of the plan, as in --groups=copy,sort; default all. Several"
    " commands with one workdir share the work.",
    flag_values=values,
  )
  absl_flags.DEFINE_list("allow", [], ALLOW, flag_values=values)


def start(main: Callable[[Request], int]) -> None:
  """Runs a command: bad input ends it with one line and exit code 2."""
  front.make_printable()
  argv = front.guarded(lambda: config_first(sys.argv), (ConfigError,))
  define(argv)
  keys = functools.partial(config_file.keys_help, argv[1])
  front.run(main, (ConfigError,), argv, parse, more_help=keys)


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


def parse(
  argv: Sequence[str], values: absl_flags.FlagValues = absl_flags.FLAGS
) -> Request:
  """Returns what `argv`, with the config first, asks for; raises ConfigError."""
  path = config_file.find(argv[1].removeprefix("--config="))
  module = config_file.load(path)
  base = module.get_config()
  keys = flatten(base)
  _check_names(argv, keys, values)
  try:
    left = values(argv)[1:]
  except absl_flags.Error as error:
    raise ConfigError(_plain(str(error), keys)) from error
  if left:
    raise ConfigError(f"'{left[0]}' is no flag; write --name=value, no space around =")
  overrides, which = dict(values["config"].override_values), values["plan"].value
  resolve(base, overrides)  # absl lets None and mixed tuples through
  return Request(
    path=path,
    base=base,
    overrides=overrides,
    plan=config_file.plan(module, path, which),
    workdir=Path(
      values["workdir"].value or Path("runs") / config_file.folder(path, which)
    ),
    dry_run=values["dry_run"].value,
    retry=values["retry"].value,
    compile=values["compile"].value,
    which=which,
    groups=tuple(values["groups"].value),
    allow=_allowed(values["allow"].value),
  )


def _allowed(classes: Sequence[str]) -> tuple[str, ...]:
  try:
    trust(classes)
  except SpecError as error:
    raise ConfigError(str(error)) from error
  return tuple(classes)


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
  known = (
    "config",
    "workdir",
    "plan",
    "groups",
    "allow",
    "dry_run",
    "compile",
    "retry",
    "help",
  )
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
  tool: str,
  path: Path,
  overrides: Mapping[str, Any],
  workdir: Path | None = None,
  own: Mapping[str, str] | None = None,
) -> str:
  """Returns the shell command that asks for this config."""
  words = ["python", "-m", f"experiments.{tool}", f"--config={short(path)}"]
  words += [f"--workdir={workdir}"] if workdir else []
  words += [f"--{name}={value}" for name, value in (own or {}).items()]
  words += [f"--config.{key}={value}" for key, value in overrides.items()]
  return shlex.join(words)
