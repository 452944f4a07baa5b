"""Estimated time and cost of training: the slowest of compute, HBM and interconnect."""

import dataclasses

from experiments.estimating.chips import Topology
from experiments.estimating.compiler import Compiled
from experiments.estimating.training_work import TrainingWork


@dataclasses.dataclass(frozen=True)
class Efficiency:
  """Shares of the published peaks that a step is assumed to reach.

  >>> Efficiency().compute
  0.5
  """

  compute: float = 0.5
  hbm: float = 0.8
  interconnect: float = 0.8


@dataclasses.dataclass(frozen=True)
class StepTime:
  """What one run takes on a slice, estimated.

  compute, hbm, interconnect   seconds of a step, if nothing else took any
  chip_hours                   of all chips of the slice, for all steps and seeds

  >>> step = StepTime(2e-3, 4e-3, 1e-3, tokens_per_s=1e6, chip_hours=8.0)
  >>> step.bound, step.seconds
  ('hbm', 0.004)
  """

  compute: float
  hbm: float
  interconnect: float
  tokens_per_s: float
  chip_hours: float

  @property
  def bound(self) -> str:
    """Returns what takes longest."""
    parts = ("compute", "hbm", "interconnect")
    return max(parts, key=lambda name: getattr(self, name))

  @property
  def seconds(self) -> float:
    """Returns the seconds of a step: all else runs beside the slowest part."""
    return getattr(self, self.bound)


def step_time(
  work: TrainingWork, compiled: Compiled, topology: Topology, efficiency: Efficiency
) -> StepTime | None:
  """Returns the estimate of a run; None where it does not fit.

  Links send and receive at once: half of their published bandwidth counts for what a
  chip sends.
  """
  if compiled.traffic is None:
    return None
  chip, chips = topology.chip, topology.chips
  chips_used = chips * work.devices / work.in_slice
  by_device = work.in_slice / chips  # devices of one chip share its peaks
  compute = work.executed / (chips_used * chip.flops.value * efficiency.compute)
  hbm = compiled.traffic.hbm * by_device
  hbm /= chip.hbm_bandwidth.value * efficiency.hbm
  interconnect = compiled.traffic.sent * by_device
  interconnect /= chip.ici_bandwidth.value / 2 * efficiency.interconnect
  seconds = max(compute, hbm, interconnect)
  return StepTime(
    compute=compute,
    hbm=hbm,
    interconnect=interconnect,
    tokens_per_s=work.tokens / seconds,
    chip_hours=chips * seconds * work.steps / 3600,
  )
