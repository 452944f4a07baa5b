"""Command line of run and sweep: --config, --workdir and any key of the config.

Every mistake gets one line with the nearest correct name, and exit code 2, before any
slow import.
"""

import dataclasses
import functools
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import flags as absl_flags
from ml_collections.config_flags import config_flags

from experiments.setup import (
  config_file,
  flag_errors,
  host_flags,
  launcher_flags,
  looks,
  profiled_steps,
)
from experiments.setup.command_line import Request
from experiments.setup.config_file import DEFAULT, short
from experiments.setup.validate import (
  ConfigError,
  flatten,
  resolve,
  seed_range,
)
from transformer_jax import command as front
from transformer_jax.spec import SpecError, trust

ALLOW = (
  "Classes that a run's folder may name besides registered ones, as in"
  " --allow=my_file:MyEncoding; importing my_file executes it. Classes named on the"
  " command line or in the config file are allowed."
)

absl_flags.disclaim_key_flags()  # --help lists them under the command itself


def define(argv: list[str], values: absl_flags.FlagValues = absl_flags.FLAGS) -> None:
  """Defines the flags, with `--config.key=value` for every key of the config.

  argv     command line, in which config_flags reads --config.key
  values   where they are defined
  """
  define_plan(argv, values)
  _define_work(values)
  _define_modes(values)
  launcher_flags.define(values)
  host_flags.define(values)


def define_plan(
  argv: list[str], values: absl_flags.FlagValues = absl_flags.FLAGS
) -> None:
  """Defines the flags that say which runs are meant; arguments as in `define`."""
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
  absl_flags.DEFINE_list("allow", [], ALLOW, flag_values=values)


def _define_work(values: absl_flags.FlagValues) -> None:
  """Defines the flags for the folder of the runs and the work on them."""
  absl_flags.DEFINE_string(
    "workdir",
    None,
    "Folder of the runs and the report; default runs/NAME_OF_CONFIG.",
    flag_values=values,
  )
  absl_flags.DEFINE_multi_string(
    "tune",
    None,
    "Values of a key that a sweep tries for every variant first, on the validation"
    " split, as in --tune='train.optimizer.lr=(1e-3, 3e-3, 1e-2)'; may be repeated.",
    flag_values=values,
  )
  absl_flags.DEFINE_string(
    "until",
    None,
    f"--until={looks.RESOLVED}: a sweep adds seeds where a primary comparison did not"
    " resolve, at looks declared before, with 5% error for all of them.",
    flag_values=values,
  )
  absl_flags.DEFINE_integer(
    "max_seeds",
    None,
    f"Most seeds of a run with --until={looks.RESOLVED}; default {looks.MOST}.",
    lower_bound=1,
    flag_values=values,
  )
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
  absl_flags.DEFINE_string(
    "profile",
    "",
    "Steps to trace with jax.profiler, rounded to dispatches: --profile=100..120; of"
    " another run of a sweep than the first: --profile='rope(base=5e5):100..120'.",
    flag_values=values,
  )
  absl_flags.DEFINE_bool(
    "retry",
    False,
    "Also start runs again whose process crashed repeatedly.",
    flag_values=values,
  )


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
  request = parse_plan(argv, values)
  looks.check_flags(values.until, values.max_seeds)
  return dataclasses.replace(
    request,
    workdir=Path(values.workdir or request.workdir),
    dry_run=values.dry_run,
    retry=values.retry,
    compile=values.compile,
    workers=values.workers,
    cores=values.cores,
    searched=tuple(values.tune or ()),
    until=values.until or "",
    max_seeds=values.max_seeds,
    hosts=host_flags.parsed(values),
    profile=profiled_steps.parsed(values.profile),
    launcher=values.launcher,
    lease=values.lease,
  )


def parse_plan(
  argv: Sequence[str], values: absl_flags.FlagValues = absl_flags.FLAGS
) -> Request:
  """Returns the request of the flags of `define_plan`; arguments as in `parse`."""
  path = config_file.find(argv[1].removeprefix("--config="))
  module = config_file.load(path)
  base = module.get_config()
  keys = flatten(base)
  argv = list(map(_with_seeds, argv))
  flag_errors.check_names(argv, keys, values)
  try:
    left = values(argv)[1:]
  except absl_flags.Error as error:
    raise ConfigError(flag_errors.sentence(error, keys, values)) from error
  if left:
    raise ConfigError(f"'{left[0]}' is no flag; write --name=value, no space around =")
  overrides = dict(config_flags.get_override_values(values["config"]))
  resolve(base, overrides)  # absl lets None and mixed tuples through
  return Request(
    path=path,
    base=base,
    overrides=overrides,
    plan=config_file.plan(module, path, values.plan),
    workdir=Path("runs") / config_file.folder(path, values.plan),
    dry_run=False,
    retry=False,
    plan_name=values.plan,
    groups=tuple(values.groups),
    allow=_allowed(values.allow),
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


def start(
  main: Callable[[Request], int],
  define: Callable[[list[str]], None] = define,
  parse: Callable[[list[str]], Request] = parse,
) -> None:
  """Runs a command: bad input ends it with one line and exit code 2.

  define, parse   of its flags; those of run and sweep unless given
  """
  front.make_printable()
  argv = front.guarded(lambda: config_first(sys.argv), (ConfigError,))
  define(argv)
  keys = functools.partial(config_file.keys_help, argv[1])
  front.run(main, (ConfigError,), argv, parse, more_help=keys)
