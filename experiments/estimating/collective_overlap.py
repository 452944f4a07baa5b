"""Collectives of a compiled program: which run beside products, and which wait.

A collective that has a start and a done runs beside what is scheduled between the two.
XLA divides products with split parameters into such pieces ("collective matmul", Wang
et al., 2023, https://dl.acm.org/doi/10.1145/3567955.3567959).
"""

import collections
import dataclasses

from experiments.estimating import traffic
from experiments.estimating.hlo import Computation, Instruction, Module

PRODUCTS = {"convolution", "dot"}
KERNEL = 'custom_call_target="tpu_custom_call"'


@dataclasses.dataclass(frozen=True)
class Overlap:
  """Bytes that a device sends by one kind of collective.

  sent     in all
  beside   of these, by collectives that run beside products, kernels or loops of them

  >>> (Overlap(sent=8.0, beside=6.0) + Overlap(sent=2.0, beside=0.0)).share
  0.6
  """

  sent: float
  beside: float

  def __add__(self, other: "Overlap") -> "Overlap":
    return Overlap(self.sent + other.sent, self.beside + other.beside)

  @property
  def share(self) -> float:
    """Returns the share that runs beside products; 1 where nothing is sent."""
    return self.beside / self.sent if self.sent else 1.0


def overlaps(module: Module) -> dict[str, Overlap]:
  """Returns the overlap of each kind of collective in a whole program."""
  found: dict[str, Overlap] = collections.defaultdict(lambda: Overlap(0.0, 0.0))
  for computation, times, _ in traffic.visits(module, module.entry):
    for instruction, kind, one in traffic.collectives(module, computation):
      sent = times * one.sent
      beside = sent if runs_beside(module, computation, instruction) else 0.0
      found[kind] += Overlap(sent, beside)
  return dict(found)


def runs_beside(
  module: Module, computation: Computation, instruction: Instruction
) -> bool:
  """Returns whether products run while a collective is under way.

  That is to its done, or to the last fusion that it is divided among.

  instruction   of the computation: the collective, or the first fusion of its parts
  """
  scheduled = list(computation.instructions.values())
  first = scheduled.index(instruction)
  fused = instruction.op == "fusion"
  channels, last = _channels(module, instruction) if fused else set(), first
  for place, each in enumerate(scheduled[first + 1 :], first + 1):
    done = each.op.endswith("-done") and instruction.name in each.operands
    if done or channels & _channels(module, each):
      last = place
  return any(computes(module, each) for each in scheduled[first : last + 1])


def _channels(module: Module, instruction: Instruction) -> set[str]:
  """Returns the channels of an instruction and of those inside of it."""
  own = instruction.attribute(r"channel_id=(\d+)")
  found = {own} if own else set()
  for name in instruction.called if instruction.op in traffic.FUSED else ():
    for each in module.computations[name].instructions.values():
      found |= _channels(module, each)
  return found


def computes(module: Module, instruction: Instruction) -> bool:
  """Returns whether an instruction is a product or a kernel, or holds one."""
  if instruction.op in PRODUCTS or KERNEL in instruction.rest:
    return True
  inside = [module.computations[name] for name in instruction.called]
  return any(
    computes(module, each) for one in inside for each in one.instructions.values()
  )
