"""Flags and environment variables of a run on several hosts.

Each process of the run is started by the same command with its own number:

  python -m experiments.run --coordinator=HOST:PORT --processes=2 --process=0
  python -m experiments.run --coordinator=HOST:PORT --processes=2 --process=1

A launcher may set variables instead; flags win:

  TRANSFORMER_JAX_COORDINATOR   address of process 0, HOST:PORT
  TRANSFORMER_JAX_PROCESSES     number of processes; 1: alone, whatever is found here
  TRANSFORMER_JAX_PROCESS       number of this process, from 0
  TRANSFORMER_JAX_HEARTBEAT     seconds of silence after which a process is given up
  TRANSFORMER_JAX_HANG_TIMEOUT  seconds without progress after which all end

Without any of them the tasks of a SLURM step and the hosts of a TPU slice join by
themselves. Exit codes besides the usual ones: LOST, where a process died or hangs: the
same command on all hosts continues from the last checkpoint.
"""

import dataclasses
import os
import re
from collections.abc import Mapping
from typing import Any

from absl import flags as absl_flags

from experiments.setup.validate import ConfigError

LOST = 75  # EX_TEMPFAIL of sysexits.h: the same command continues
VARIABLE = "TRANSFORMER_JAX_"  # followed by the name of a flag in capitals
TOGETHER = ("coordinator", "processes", "process")
HEARTBEAT, HANG_TIMEOUT = 100.0, 3600.0  # seconds

absl_flags.disclaim_key_flags()  # --help lists them under the command itself


@dataclasses.dataclass(frozen=True)
class Hosts:
  """How this process joins others.

  coordinator    address of process 0; "": JAX finds it, as on SLURM and TPU VMs
  processes      their number; 0: JAX finds it
  process        number of this one; -1: JAX finds it
  heartbeat      seconds of silence after which a process is given up
  hang_timeout   seconds without progress after which all end

  >>> Hosts("10.0.0.1:8476", processes=2, process=1).named
  True
  """

  coordinator: str = ""
  processes: int = 0
  process: int = -1
  heartbeat: float = HEARTBEAT
  hang_timeout: float = HANG_TIMEOUT

  @property
  def named(self) -> bool:
    """Whether flags or variables name the other processes."""
    return bool(self.coordinator)

  @property
  def alone(self) -> bool:
    """Whether flags or variables say that there are no others."""
    return self.processes == 1

  def flags(self) -> dict[str, str]:
    """Returns {name: value} of what was chosen, for the command of every host.

    Each host has a number of its own, which is I there.

    >>> Hosts("10.0.0.1:8476", processes=2, process=1).flags()
    {'coordinator': '10.0.0.1:8476', 'processes': '2', 'process': 'I'}
    """
    chosen = {
      field.name: getattr(self, field.name)
      for field in dataclasses.fields(self)
      if getattr(self, field.name) != field.default
    }
    chosen |= {"process": "I"} if "process" in chosen else {}
    return {
      name: f"{value:.15g}" if isinstance(value, float) else str(value)
      for name, value in chosen.items()
    }


def define(values: absl_flags.FlagValues) -> None:
  """Defines the flags."""
  absl_flags.DEFINE_string(
    "coordinator",
    None,
    "Several hosts: address of process 0, as in --coordinator=10.0.0.1:8476.",
    flag_values=values,
  )
  absl_flags.DEFINE_integer(
    "processes",
    None,
    "Several hosts: number of processes that train together; default those of the"
    " SLURM step or TPU slice. 1: this one alone.",
    lower_bound=1,
    flag_values=values,
  )
  absl_flags.DEFINE_integer(
    "process",
    None,
    "Several hosts: number of this process, from 0; process 0 writes the records.",
    lower_bound=0,
    flag_values=values,
  )
  absl_flags.DEFINE_float(
    "heartbeat",
    None,
    f"Several hosts: seconds of silence, default {HEARTBEAT:g}, after which a process"
    f" is given up and the others end with exit code {LOST}.",
    lower_bound=1,
    flag_values=values,
  )
  absl_flags.DEFINE_float(
    "hang_timeout",
    None,
    f"Several hosts: seconds without progress, default {HANG_TIMEOUT:g}, after which"
    f" all end with exit code {LOST}; more than the longest compilation.",
    lower_bound=1,
    flag_values=values,
  )


def parsed(
  values: absl_flags.FlagValues, environment: Mapping[str, str] = os.environ
) -> Hosts:
  """Returns the flags, or the variables in their place; raises ConfigError."""
  given: dict[str, Any] = {}
  for name in (field.name for field in dataclasses.fields(Hosts)):
    if values[name].value is not None:
      given[name] = values[name].value
    elif text := environment.get(f"{VARIABLE}{name.upper()}"):
      given[name] = _of_variable(values[name], f"{VARIABLE}{name.upper()}", text)
  hosts = Hosts(**given)
  missing = [f"--{name}" for name in TOGETHER if name not in given]
  if not hosts.alone and 0 < len(missing) < len(TOGETHER):
    raise ConfigError(
      f"{' and '.join(missing)} missing: each process of several is started with"
      " --coordinator=HOST:PORT --processes=N --process=I"
    )
  if hosts.named and not hosts.alone:
    check(hosts)
  return hosts


def _of_variable(flag: absl_flags.Flag, name: str, text: str) -> Any:
  try:
    return flag.parser.parse(text)
  except ValueError as error:
    raise ConfigError(f"{name}={text!r}: {error}") from error


def check(hosts: Hosts) -> None:
  """Raises ConfigError for an address or a number that cannot be."""
  if not re.fullmatch(r"\S+:\d{1,5}", hosts.coordinator):
    raise ConfigError(
      f"--coordinator={hosts.coordinator}: write the address of process 0 with a free"
      " port, as in --coordinator=10.0.0.1:8476"
    )
  if hosts.process >= hosts.processes:
    raise ConfigError(
      f"--process={hosts.process}: there are --processes={hosts.processes}, numbered"
      f" from 0; write 0 to {hosts.processes - 1}"
    )
