"""Messages on flags that do not exist, or have a value of another type."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from absl import flags as absl_flags

from experiments.setup.validate import (
  ConfigError,
  offer,
  spellings,
  unknown_key,
  wanted,
)
from transformer_jax import command as front

# Of run and sweep.
FLAGS = (
  *("config", "workdir", "plan", "groups", "workers", "cores", "tune", "allow"),
  *("until", "max_seeds", "dry_run", "compile", "profile", "retry"),
  *("coordinator", "processes", "process", "heartbeat", "hang_timeout"),
  *("launcher", "lease", "help"),
)
# Of estimate alone.
OF_ESTIMATE = ("topology", "price", "efficiency", "smallest", "csv", "json")
# {flag: command that has it}, for the messages of other commands.
OF_SWEEP = dict.fromkeys(FLAGS, "experiments.sweep")


def check_names(
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
      name = f"{match[1] or ''}{match['key']}"
      problems.append(_unknown_flag(name, keys, values))
  if problems:
    raise ConfigError(*problems)


def _unknown_flag(name: str, keys: Iterable[str], values: absl_flags.FlagValues) -> str:
  """Returns a message with the nearest flag, also where only `config.` is missing."""
  flags = [flag for flag in (*OF_ESTIMATE, *FLAGS) if flag in values or flag == "help"]
  meant = {short: f"--config.{key}" for short, key in spellings(keys).items()}
  meant |= {f"config.{key}": f"--config.{key}" for key in keys}
  meant |= {flag: f"--{flag}" for flag in flags}
  listed = ", ".join(f"--{flag}" for flag in flags)
  return f"unknown flag --{name}.{offer(name, meant)} Flags: {listed}, --config.KEY."


def sentence(
  error: absl_flags.Error, keys: Mapping[str, Any], values: absl_flags.FlagValues
) -> str:
  """Rewrites a parsing error of absl as flag, value and the type to write."""
  if match := re.match(r"flag --config\.([\w.]+)=(.*?): ", str(error), re.DOTALL):
    key, value = match.groups()
    return f"--config.{key}={value!r}: {wanted(keys[key])}"
  return front.sentence(error, values, {})
