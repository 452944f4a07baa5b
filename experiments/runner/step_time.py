"""Seconds of a training step, measured on two configs in turn."""

import contextlib
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from experiments.runner import training_text
from experiments.runner.build import build
from experiments.runner.compile_cache import programs_in
from transformer_jax.training import dispatch, sharding

# Returns the seconds of a step of the first config and of the second.
Timer = Callable[[ConfigDict, ConfigDict], tuple[float, float]]

ROUNDS = 7


def timer(programs: Path) -> Timer:
  """Returns a timer that compiles into a folder, in which runs find their programs."""

  def measure(config: ConfigDict, baseline: ConfigDict) -> tuple[float, float]:
    with programs_in(programs):
      return in_turn(stepper(config), stepper(baseline))

  return measure


def in_turn(
  one: Callable[[], float], other: Callable[[], float], rounds: int = ROUNDS
) -> tuple[float, float]:
  """Returns the median of the second's times, and it times the median of their ratios.

  The first is measured right beside the second in each round, so that what else the
  machine does slows both. The order of the result is that of the arguments.
  """
  one(), other()  # the first steps fetch memory
  pairs = [(one(), other()) for _ in range(rounds)]
  reference = statistics.median(theirs for _, theirs in pairs)
  return reference * statistics.median(x / y for x, y in pairs), reference


def stepper(config: ConfigDict) -> Callable[[], float]:
  """Returns a function that trains one dispatch and returns the seconds of a step."""
  from experiments.runner.train import load

  experiment, mesh = build(config), sharding.make_mesh(**config.mesh)
  arrays = load(experiment.task)[0]
  arrays, _ = training_text.placed(experiment.task, arrays, experiment.text)
  arrays = sharding.whole(mesh, arrays)
  count = experiment.budget.per_dispatch
  program = dispatch.compile_steps(
    experiment.trainer, experiment.seeds, arrays, mesh, count
  )
  state: Any = program.init()
  ahead = contextlib.ExitStack()  # read on for as long as there is the stepper
  windows = ahead.enter_context(program.windows_from(0))

  def seconds() -> float:
    nonlocal state
    assert ahead, "kept by this function"
    of_dispatch = next(windows)
    start = time.perf_counter()
    state, metrics = program(arrays, state, of_dispatch)
    jax.block_until_ready((state, metrics))
    return (time.perf_counter() - start) / count

  return seconds
