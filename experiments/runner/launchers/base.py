"""Base class of launchers: where the runs of a sweep are worked on.

Runs, records and claims stay ours: a launcher carries worker processes, or the command
itself, to machines that share the folder of the sweep.
"""

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from experiments.runner.run_folder import Outcome
from experiments.setup.command_line import Request
from experiments.setup.runs import Run
from experiments.setup.validate import ConfigError
from transformer_jax.spec import Registry
from transformer_jax.training.signals import Stop

# Values of JAX_PLATFORMS with which JAX uses such devices.
PLATFORMS = {"gpus": {"cuda", "rocm", "gpu"}, "tpus": {"tpu"}}


class Loop(Protocol):
  """SweepWork on runs under way.

  shared   whether processes of other commands worked on some of the runs

  >>> class Nothing:
  ...   shared = False
  ...   def outcomes(self):
  ...     return iter(())
  >>> nothing: Loop = Nothing()
  >>> list(nothing.outcomes())
  []
  """

  shared: bool

  def outcomes(self) -> Iterator[Outcome]:
    """Yields the outcome of each run, until a signal stops the work."""
    ...


@dataclasses.dataclass(frozen=True)
class SweepWork:
  """Runs to work on.

  todo          the runs, in order
  folders       {name: folder} of the runs, in the order of work
  unfinished    number of runs that are not finished
  stop          becomes true when the work should end
  one_by_one    makes a loop over the runs in this process

  >>> SweepWork(None, [], {}, unfinished=0, stop=Stop(), one_by_one=list).unfinished
  0
  """

  request: Request
  todo: Sequence[Run]
  folders: Mapping[str, Path]
  unfinished: int
  stop: Stop
  one_by_one: Callable[[], Loop]


class Launcher:
  """Where runs are worked on; a user's own inherits this class.

  on_this_machine   whether runs compute on this machine's devices, which a check of
                    their meshes then counts
  carries_command   whether the whole command is executed elsewhere, by `carry`

  >>> class Mine(Launcher):
  ...   def loop(self, work):
  ...     return work.one_by_one()
  >>> Mine().on_this_machine
  True
  """

  on_this_machine = True
  carries_command = False

  def check(self, request: Request) -> None:
    """Raises ConfigError where the machines cannot be used; before anything is written.

    Called before each round of work, and not for a dry run.
    """

  def carry(self, request: Request) -> int:
    """Executes the whole command elsewhere and returns its exit code."""
    raise NotImplementedError

  def describe(self, request: Request, count: int) -> None:
    """Prints what would be started, for a dry run of so many runs."""

  def loop(self, work: SweepWork) -> Loop:
    """Returns the loop over runs."""
    raise NotImplementedError


def check_platforms(name: str, **wanted: int) -> None:
  """Raises ConfigError where workers would compute on other devices than they get.

  JAX_PLATFORMS of the command's process is that of its workers too.

  name     of the launcher
  wanted   gpus= and tpus= of each worker

  >>> check_platforms("ray", gpus=0, tpus=0)
  """
  given = os.environ.get("JAX_PLATFORMS", "")
  for devices, number in wanted.items():
    if number and given and not PLATFORMS[devices] & {*given.split(",")}:
      raise ConfigError(
        f"--launcher={name}: {devices}={number}, but JAX_PLATFORMS={given} is set here"
        " and goes to the workers, which would leave them unused: unset it"
      )


launchers = Registry("launcher", Launcher)
