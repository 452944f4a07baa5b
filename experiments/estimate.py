"""Says what training on a TPU slice takes, without a TPU: memory, time, cost.

  pip install -e '.[tpu-aot]'
  python -m experiments.estimate --config=experiments/configs/pod.py \\
    --topology=v5e:16x16 --price=1.2

The training steps of every variant of the config's plan are compiled for the slice, as
a run there would compile them. No data is read and nothing runs: the tables say what
was compiled and what is an estimate.
Exit code 0: done, also where a variant does not fit; 1: one did not compile; 2: bad
input.
"""

import dataclasses
import functools
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags as absl_flags

from experiments.estimating import chips, compiler, smallest, tables, variant_estimate
from experiments.estimating.chips import Topology
from experiments.estimating.compiler import Compiler
from experiments.estimating.roofline import Efficiency, step_time
from experiments.estimating.training_work import counted
from experiments.estimating.variant_estimate import VariantEstimate
from experiments.setup import flags, runs
from experiments.setup.command_line import Request
from experiments.setup.runs import Run
from experiments.setup.validate import ConfigError
from transformer_jax.untrusted import shown

FLAGS = absl_flags.FLAGS
WIDTH = 150  # characters of a table that goes to a file


def define(argv: list[str]) -> None:
  """Defines the flags: those that say which runs are meant, and the estimate's own."""
  flags.define_plan(argv)
  absl_flags.DEFINE_string(
    "topology", None, "The TPU slice, as in v5e:4x4, v5p:4x4x4 or v6e:4x4."
  )
  absl_flags.DEFINE_float(
    "price", 0.0, "Price of a chip for an hour, in any currency.", lower_bound=0.0
  )
  absl_flags.DEFINE_list(
    "efficiency",
    [str(x) for x in dataclasses.astuple(Efficiency())],
    "Shares of the chip's peaks that a step reaches: compute, HBM, interconnect.",
  )
  absl_flags.DEFINE_bool(
    "smallest", False, "Also look for the smallest slice of the chip that holds it."
  )
  absl_flags.DEFINE_bool(
    "facts", False, "Also list the copies of large arrays, with their lines of code."
  )
  absl_flags.DEFINE_string("csv", None, "File for a line of figures for each variant.")
  absl_flags.DEFINE_string("json", None, "File for all figures, with their sources.")


@dataclasses.dataclass(frozen=True)
class Options:
  """This command's own flags.

  files   {flag: path} of results to write
  facts   whether copies of large arrays are listed

  >>> Options(chips.topology("v5e:4x4"), 1.2, Efficiency(), False, {}).topology.chips
  16
  """

  topology: Topology
  price: float
  efficiency: Efficiency
  smallest: bool
  files: dict[str, Path]
  facts: bool = False


def options() -> Options:
  """Returns the values of this command's flags; raises ConfigError."""
  if not FLAGS.topology:
    raise ConfigError("--topology is missing; write --topology=v5e:4x4")
  given = {"csv": FLAGS.csv, "json": FLAGS.json}
  files = {name: Path(value) for name, value in given.items() if value}
  for name, path in files.items():
    variant_estimate.check_writable(name, path)
  return Options(
    topology=chips.topology(FLAGS.topology),
    price=FLAGS.price,
    efficiency=_efficiency(FLAGS.efficiency),
    smallest=FLAGS.smallest,
    files=files,
    facts=FLAGS.facts,
  )


def _efficiency(words: Sequence[str]) -> Efficiency:
  try:
    shares = [float(word) for word in words]
  except ValueError:
    shares = []
  if len(shares) != 3 or not all(0 < share <= 1 for share in shares):
    raise ConfigError(
      f"--efficiency={','.join(words)}: write three shares of compute, HBM and"
      " interconnect, above 0 and up to 1, as in 0.5,0.8,0.8"
    )
  return Efficiency(*shares)


def main(request: Request) -> int:
  """Compiles, estimates and prints; returns the exit code."""
  return work(request, options())


def work(request: Request, asked: Options) -> int:
  """As `main`, with the options given."""
  compiler.require()
  todo = planned(request)
  devices = len(compiler.devices_of(asked.topology))
  check(todo, asked.topology, devices)
  found, compile_once = [], Compiler()
  for number, run in enumerate(todo, 1):
    start = time.perf_counter()
    try:
      found.append(row_of(run, asked, compile_once, devices))
      said = f"{time.perf_counter() - start:.0f} s"
    except (ValueError, NotImplementedError) as error:
      said = f"error: {shown(error)}"
    name = f"[{number}/{len(todo)}] {run.group} {run.label}"
    print(f"{name}: {said}", file=sys.stderr, flush=True)
    save(found, asked)
  show(found, asked)
  return 1 if len(found) < len(todo) else 0


def planned(request: Request) -> list[Run]:
  """Returns the runs of the plan with matched budgets, or the config's own."""
  # They import all libraries, and JAX reads its variables then.
  from experiments import run as single
  from experiments.runner import solver

  if request.plan is None:
    return [single.chosen(request)]
  todo = runs.expand(request.plan, request.base, request.overrides)
  baseline = runs.baseline(request.plan, todo)
  if any(run.match for run in todo):
    todo = solver.solve(todo, baseline, {}, None)
  if any(run.match and run.match.quantity == "seconds" for run in todo):
    print("Steps that match seconds are measured as a sweep starts, and not here.")
  if request.plan.tune:
    print("The plan is tuned: its search is left out here.")
  return runs.only(todo, request.groups)


def check(todo: Sequence[Run], topology: Topology, devices: int) -> None:
  """Raises ConfigError with the problems of all runs, before any is compiled."""
  from experiments.runner.build import build

  found: dict[str, None] = {}
  for run in todo:
    problems = [*compiler.problems(run.config, topology, devices)]
    found |= dict.fromkeys(problems)
    try:
      if not problems:
        build(run.config)
    except ConfigError as error:
      found |= dict.fromkeys(error.problems)
    except ValueError as error:
      found[f"{run.group} {run.label}: {error}"] = None
  if found:
    raise ConfigError(*found)


def row_of(
  run: Run, asked: Options, compile_once: Compiler, devices: int
) -> VariantEstimate:
  """Returns the figures of one run."""
  compiled = compile_once(run.config, asked.topology)
  counts = counted(run.config, devices)
  found = ""
  if asked.smallest:
    fits = functools.partial(holds, run, compile_once)
    found = getattr(smallest.smallest(asked.topology, fits), "name", "")
  return VariantEstimate(
    group=run.group,
    label=run.label,
    work=counts,
    compiled=compiled,
    time=step_time(counts, compiled, asked.topology, asked.efficiency),
    price=asked.price,
    smallest=found,
    searched=asked.smallest,
  )


def holds(run: Run, compile_once: Compiler, topology: Topology) -> bool | None:
  """Returns whether a slice holds a run; None: its devices do not fit the mesh."""
  devices = len(compiler.devices_of(topology))
  if any(compiler.problems(run.config, topology, devices)):
    return None
  return compile_once(run.config, topology).fits


def save(found: Sequence[VariantEstimate], asked: Options) -> None:
  """Writes the files of results, as far as there are any."""
  common = variant_estimate.facts(asked.topology, asked.efficiency, compiler.versions())
  write: dict[str, Any] = {
    "csv": variant_estimate.save_csv,
    "json": variant_estimate.save_json,
  }
  for name, path in asked.files.items():
    write[name](path, found, common)


def show(found: Sequence[VariantEstimate], asked: Options) -> None:
  """Prints the tables and what they rest on."""
  from rich.console import Console

  if not found:
    return
  console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)
  for table in (tables.compiled, tables.step_facts, tables.estimated):
    console.print(table(found, asked.topology))
  if asked.facts:
    console.print(tables.large_copies(found))
  console.print(tables.total(found))
  versions = compiler.versions()
  for note in tables.notes(found, asked.topology, asked.efficiency, versions):
    console.print(note)


if __name__ == "__main__":
  os.environ["JAX_PLATFORMS"] = "cpu"  # a TPU of this machine stays free
  flags.start(main, define, flags.parse_plan)
