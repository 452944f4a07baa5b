"""Bytes that a compiled program moves: to and from HBM, and between chips.

XLA's own count takes the body of a loop once. This one multiplies it by the loop's
length, leaves out what stays in a chip's fast memory, and counts the part that a slice
reads and not the whole array.
"""

import collections
import dataclasses
import re
from collections.abc import Iterator

from experiments.estimating.hlo import (
  Array,
  Computation,
  Instruction,
  Module,
  parse,
  trips,
)

CONTROL = {"while", "conditional", "call"}
# They move nothing, or their start did.
FREE = {
  *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all"),
  *("partition-id", "replica-id", "opt-barrier", "domain", "add-dependency"),
}
KINDS = (
  *("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all"),
  *("ragged-all-to-all", "collective-broadcast"),
)
# What they call runs as a part of them, of calls on a core for collectives.
FUSED = {"fusion", "async-start", "call-start"}
SCATTERS = "all-reduce-scatter"  # TPUs name a fusion so: an all-reduce and a slice
SLICES = {"dynamic-slice", "slice", "gather"}
COPIES = {"copy-start", "slice-start", "dynamic-slice-start"}
# Calls that only name memory.
NAMES_MEMORY = re.compile(
  'custom_call_target="(AllocateBuffer|ConcatBitcast|AssumeGather|Sharding)'
)


@dataclasses.dataclass(frozen=True)
class Collective:
  """One kind of traffic between chips.

  count   operations
  sent    bytes that each device sends, by the algorithm of a ring

  >>> Collective(2, 1.5e6) + Collective(1, 0.5e6)
  Collective(count=3, sent=2000000.0)
  """

  count: float
  sent: float

  def __add__(self, other: "Collective") -> "Collective":
    return Collective(self.count + other.count, self.sent + other.sent)

  def times(self, factor: float) -> "Collective":
    """Returns that of several such programs."""
    return Collective(self.count * factor, self.sent * factor)


@dataclasses.dataclass(frozen=True)
class Traffic:
  """Bytes that one device moves in a program.

  hbm           read from and written to HBM
  collectives   by kind, as in all-reduce
  open_loops    loops whose length the data decide: counted once

  >>> Traffic(8.0, {"all-reduce": Collective(1, 6.0)}, 0).times(0.5).sent
  3.0
  """

  hbm: float
  collectives: dict[str, Collective]
  open_loops: int

  @property
  def sent(self) -> float:
    """Returns the bytes that each device sends to others."""
    return sum(each.sent for each in self.collectives.values())

  def times(self, factor: float) -> "Traffic":
    """Returns the traffic of several such programs, or of a part of one."""
    scaled = {kind: each.times(factor) for kind, each in self.collectives.items()}
    return Traffic(self.hbm * factor, scaled, self.open_loops)


def traffic(text: str) -> Traffic:
  """Returns the traffic of a program of XLA, given as text."""
  module = parse(text)
  hbm, open_loops = 0.0, 0
  found: dict[str, Collective] = collections.defaultdict(lambda: Collective(0, 0.0))
  for computation, times, is_open in visits(module, module.entry):
    open_loops += is_open
    for each in computation.instructions.values():
      hbm += times * moved(module, computation, each)
    for _, kind, one in collectives(module, computation):
      found[kind] += one.times(times)
  return Traffic(hbm, dict(found), open_loops)


def visits(
  module: Module, computation: Computation, times: float = 1, is_open: bool = False
) -> Iterator[tuple[Computation, float, bool]]:
  """Yields each computation that runs, how often, and whether that is unknown.

  Of the branches of a conditional all count.
  """
  yield computation, times, is_open
  for each in computation.instructions.values():
    if each.op in CONTROL:
      length = trips(module, each, computation) if each.op == "while" else 1
      for name in each.called:
        inner = module.computations[name]
        yield from visits(module, inner, times * (length or 1), length is None)


def moved(module: Module, computation: Computation, each: Instruction) -> float:
  """Returns the bytes that one instruction reads from and writes to HBM."""
  if each.op in FREE | CONTROL or each.op.endswith("-done"):
    return 0
  if each.op == "custom-call" and NAMES_MEMORY.search(each.rest):
    return 0
  if each.op == "fusion":
    return _of_fusion(module, computation, each)
  if each.op in SLICES:
    return 2 * _slow(each.arrays)
  operands = [computation.instructions[name].arrays for name in each.operands]
  if each.op == "dynamic-update-slice":
    return 2 * _slow(operands[1])
  if each.op in COPIES:  # results: where to, where from, and a flag
    ends = each.arrays[:2]
    return min(x.bytes for x in ends) * sum(not x.fast for x in ends)
  if each.op.endswith("-start") and len(each.arrays) > len(operands):
    return _slow(each.arrays)  # which name the operands again
  return sum(_slow(x) for x in (*operands, each.arrays))


def _of_fusion(module: Module, computation: Computation, each: Instruction) -> float:
  """Returns the bytes of a fusion: of sliced operands the slices, of updates those."""
  inner, moved = module.computations[each.called[0]], 0.0
  for number, name in enumerate(each.operands):
    outside = computation.instructions[name].arrays
    if _slow(outside) and number in inner.parameters:
      read = _read(module, inner, inner.parameters[number].name)
      moved += min(_slow(outside), read)
  written = [*_written(module, inner, inner.root)]
  for result, array in zip(each.arrays, written, strict=False):
    moved += 0 if result.fast else min(array.bytes, result.bytes)
  return moved


def _read(module: Module, inner: Computation, name: str) -> float:
  """Returns the bytes that a fusion, and those in it, read of one parameter."""
  total = 0.0
  for user in inner.users(name):
    if user.op in SLICES and user.operands[0] == name:
      total += sum(array.bytes for array in user.arrays)
    elif user.op == "bitcast":
      total += _read(module, inner, user.name)
    elif user.op == "dynamic-update-slice" and user.operands[0] == name:
      continue  # written in place
    elif user.op == "fusion":
      nested = module.computations[user.called[0]]
      numbers = [n for n, operand in enumerate(user.operands) if operand == name]
      total += sum(_read(module, nested, nested.parameters[n].name) for n in numbers)
    else:
      return sum(array.bytes for array in inner.instructions[name].arrays)
  return total


def _written(module: Module, inner: Computation, root: Instruction) -> Iterator[Array]:
  """Yields what a fusion writes: of an array that is updated in place, the update."""
  if root.op == "tuple":
    for name in root.operands:
      yield from _written(module, inner, inner.instructions[name])
  elif root.op == "bitcast":
    yield from _written(module, inner, inner.instructions[root.operands[0]])
  elif root.op == "fusion":
    nested = module.computations[root.called[0]]
    yield from _written(module, nested, nested.root)
  elif root.op == "dynamic-update-slice":
    yield inner.instructions[root.operands[1]].arrays[0]
  else:
    yield from root.arrays


def _slow(arrays: tuple[Array, ...]) -> float:
  """Returns the bytes of the arrays that lie in HBM."""
  return sum(array.bytes for array in arrays if not array.fast)


def collectives(
  module: Module, computation: Computation
) -> Iterator[tuple[Instruction, str, Collective]]:
  """Yields (instruction, kind, traffic) of the collectives of a computation.

  Also of those inside of its fusions, with the fusion as the instruction: TPUs divide
  one that runs beside other work among fusions, and all name its channel.
  """
  channels = set()
  for outer, inner, each in with_fused(module, computation):
    kind = each.op.removesuffix("-start")
    # All those of `shard_map` name one channel: it tells parts of one in fusions alone.
    channel = each.attribute(r"channel_id=(\d+)") if outer.op == "fusion" else None
    if kind not in KINDS or (kind, channel) in channels:
      continue
    channels |= {(kind, channel)} if channel else set()
    operands = [inner.instructions[name].arrays for name in each.operands]
    size = sum(array.bytes for arrays in operands for array in arrays)
    if SCATTERS in inner.name:
      kind = "reduce-scatter"
    sent = size * share(kind, group(each, module.devices))
    yield outer, kind, Collective(1, sent)


def with_fused(
  module: Module, computation: Computation, outer: Instruction | None = None
) -> Iterator[tuple[Instruction, Computation, Instruction]]:
  """Yields (outer, computation, instruction), also of instructions inside of fusions.

  outer   the fusion of the first computation that an instruction is part of, or itself
  """
  for each in computation.instructions.values():
    yield outer or each, computation, each
    if each.op in FUSED:
      for name in each.called:
        yield from with_fused(module, module.computations[name], outer or each)


def share(kind: str, devices: int) -> float:
  """Returns the bytes that a device sends for each byte of its operand, in a ring.

  >>> share("all-reduce", 4), share("all-gather", 4), share("reduce-scatter", 4)
  (1.5, 3, 0.75)
  """
  shares = {
    "all-reduce": 2 * (devices - 1) / devices,
    "all-gather": devices - 1,  # the operand is a device's own part
    "collective-permute": 1,
  }
  return shares.get(kind, (devices - 1) / devices)


def group(each: Instruction, devices: int) -> int:
  """Returns how many devices take part in a collective together.

  devices   of the whole program: all take part where no groups are named
  """
  if lists := each.attribute(r"replica_groups=\{\{([\d,]+)\}"):
    return len(lists.split(","))
  if iota := each.attribute(r"replica_groups=\[\d+,(\d+)\]"):
    return int(iota)
  if axes := each.attribute(r"replica_groups=mesh\[[^{]*\{([^}]*)\}"):
    return _of_mesh(each.attribute(r"replica_groups=mesh\[([^\]]*)\]") or "", axes)
  return devices


def _of_mesh(mesh: str, axes: str) -> int:
  """Returns the devices along some axes of a mesh, both as XLA writes them.

  mesh   'a'=2,'b'=8
  axes   'a','b' or a part of one: 'b':(1)4
  """
  sizes = dict(re.findall(r"'([^']+)'=(\d+)", mesh))
  size = 1
  for name, part in re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", axes):
    size *= int(part or sizes[name])
  return size
