"""Compilation of a run's training steps for TPUs that are not here."""

import dataclasses
import hashlib
import importlib.metadata
import importlib.util
import os
import re
import time
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from experiments.estimating.chips import Topology
from experiments.estimating.step_facts import StepFacts, facts
from experiments.estimating.traffic import Traffic, traffic
from experiments.setup.validate import ConfigError, flatten, validate
from transformer_jax.mesh_shape import MeshShape

# To be set before JAX starts. This process computes on a CPU; libtpu compiles alone.
ENVIRONMENT = {
  "TPU_SKIP_MDS_QUERY": "1",  # no TPU VM is asked who it is
  "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # several processes may compile at once
  # Without these two libtpu warns that it does not know them.
  "TPU_WORKER_HOSTNAMES": "localhost",
  "TPU_ACCELERATOR_TYPE": "v5litepod-4",
}
ONE_CHIP = {"1x1": {"chips_per_host_bounds": (1, 1, 1)}}  # a host has four otherwise
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
TOO_LARGE = (
  re.compile(r"\(([\d.]+)([KMGT]?)\) exceeds available HBM \(([\d.]+)([KMGT]?)\)"),
  re.compile(r"[Uu]sed ([\d.]+)([KMGT]?) of ([\d.]+)([KMGT]?) hbm"),
)


@dataclasses.dataclass(frozen=True)
class Compiled:
  """One dispatch, compiled, or the reason why it is not.

  peak_bytes       memory that one device needs
  hbm_bytes        memory that it has
  argument_bytes   parameters, moments and data; None: it does not fit
  traffic          of one training step on one device; None: it does not fit
  seconds          to compile
  facts            of one training step on one device; None: it does not fit

  >>> Compiled(peak_bytes=3, hbm_bytes=2, argument_bytes=None, traffic=None).fits
  False
  """

  peak_bytes: float
  hbm_bytes: float
  argument_bytes: float | None
  traffic: Traffic | None
  seconds: float = 0.0
  facts: StepFacts | None = None

  @property
  def fits(self) -> bool:
    """Returns whether the compiler found a place for everything."""
    return self.traffic is not None


def require() -> None:
  """Sets the environment of the compiler; raises ConfigError where it is not there."""
  for name, value in ENVIRONMENT.items():
    os.environ.setdefault(name, value)
  if importlib.util.find_spec("libtpu") is None:
    raise ConfigError(
      "compiling for TPUs needs libtpu, in the version that jax was tested with:"
      " pip install -e '.[tpu-aot]'"
    )


def versions() -> dict[str, str]:
  """Returns the versions that compile."""
  return {name: importlib.metadata.version(name) for name in ("jax", "libtpu")}


def devices_of(topology: Topology) -> list[Any]:
  """Returns the devices of a slice, for programs that are compiled and never run."""
  from jax.experimental import topologies

  more = ONE_CHIP.get(topology.shape, {})
  return list(topologies.get_topology_desc(topology.name, "tpu", **more).devices)


def problems(config: ConfigDict, topology: Topology, devices: int) -> Iterator[str]:
  """Yields a sentence for each reason why a slice cannot train a config.

  devices   of the slice
  """
  start = f"--topology={topology.name}: "
  try:
    validate(config, devices)
  except ConfigError as error:
    yield from (start + problem for problem in error.problems)
    return
  shape = MeshShape.of(flatten(config))
  if devices % shape.filled(devices).least:
    yield (
      f"{start}{shape} does not divide its {devices} devices; write mesh.data=-1 for"
      " all that are left"
    )


class Compiler:
  """Compiles the steps of runs for slices, each program once.

  >>> Compiler().programs
  {}
  """

  def __init__(self):
    self.programs: dict[str, Compiled] = {}

  def __call__(self, config: ConfigDict, topology: Topology) -> Compiled:
    """Returns the compiled dispatch of a config; raises ValueError where it has none.

    config   validated for this slice
    """
    lowered = lower(config, devices_of(topology))
    text = f"{topology.name}\n{lowered.as_text()}"
    key = hashlib.sha256(text.encode()).hexdigest()
    if key not in self.programs:
      self.programs[key] = compiled(lowered, config, topology)
    return self.programs[key]


def lower(config: ConfigDict, devices: list[Any]) -> Any:
  """Returns a run's dispatch, lowered for devices that may be another machine's.

  It is the program of a run, with shapes in place of the data.
  """
  import jax
  from jax.sharding import NamedSharding, PartitionSpec

  from experiments.runner.build import build
  from experiments.runner.training_text import without_data
  from transformer_jax.compiler_options import of_training
  from transformer_jax.training import dispatch, sharding

  experiment = build(config)
  mesh = sharding.make_mesh(**config.mesh, devices=devices)
  everywhere = NamedSharding(mesh, PartitionSpec())
  arrays = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere),
    without_data(experiment.task, experiment.text),
  )
  count, seeds = experiment.budget.per_dispatch, len(experiment.seeds)
  lowered, together = dispatch.lower_steps(
    experiment.trainer, seeds, arrays, mesh, count, options=of_training(mesh)
  )
  assert together == seeds, "a TPU trains all seeds by one program"
  return lowered


def compiled(lowered: Any, config: ConfigDict, topology: Topology) -> Compiled:
  """Compiles the dispatch of a config."""
  import jax

  from transformer_jax.data.base import tasks

  start = time.perf_counter()
  try:
    program = lowered.compile()
  except jax.errors.JaxRuntimeError as error:
    needed = exhausted(str(error))
    if needed is None:
      raise ValueError(f"the compiler failed: {first_line(error)}") from error
    return Compiled(*needed, None, None, time.perf_counter() - start)
  seconds = time.perf_counter() - start
  memory, text = program.memory_analysis(), program.as_text()
  steps = config.train.steps_per_dispatch
  vocabulary = tasks.build(config.task).vocabulary // config.mesh.tensor
  return Compiled(
    peak_bytes=memory.peak_memory_in_bytes,
    hbm_bytes=topology.chip.hbm_bytes.value,
    argument_bytes=memory.argument_size_in_bytes,
    traffic=traffic(text).times(1 / steps),
    seconds=seconds,
    facts=facts(text, steps, vocabulary, config.model.width),
  )


def exhausted(message: str) -> tuple[float, float] | None:
  """Returns the bytes that a program needs and has, of the compiler's message.

  None where the message is about something else.

  >>> exhausted("the total memory (17.00G) exceeds available HBM (15.75G).")
  (18253611008.0, 16911433728.0)
  """
  for pattern in TOO_LARGE:
    if match := pattern.search(message):
      needed, unit, has, of = match.groups()
      return float(needed) * UNITS[unit], float(has) * UNITS[of]
  return None


def first_line(error: Exception) -> str:
  """Returns the start of a message of the compiler."""
  return " ".join(str(error).split())[:300]
