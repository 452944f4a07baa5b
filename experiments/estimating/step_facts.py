"""Facts of a compiled training step that decide whether it is a fast one.

Read from the text of the compiled program, as its traffic is.
"""

import dataclasses
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from experiments.estimating import traffic
from experiments.estimating.collective_overlap import (
  KERNEL,
  PRODUCTS,
  Overlap,
  computes,
  overlaps,
)
from experiments.estimating.hlo import Array, Computation, Instruction, Module, parse
from experiments.estimating.source_lines import SourceLines

LARGE = 16 * 2**20  # bytes of an array whose copy is listed
PACKAGE = "transformer_jax"
LOSS = f"{PACKAGE}/training/loss.py"
COPIES = {"copy", "transpose", "reshape"}
# A fusion of these moves an array, or converts it, and computes nothing.
MOVES = COPIES | {"parameter", "constant", "bitcast", "convert", "slice", "pad"}
MOVES |= {"dynamic-slice", "dynamic-update-slice", "concatenate", "tuple"}
MOVES |= {"get-tuple-element", "broadcast"}
HOST = {"infeed", "outfeed"}
HOST_CALL = re.compile(r'custom_call_target="[^"]*([Cc]allback|[Hh]ost)[^"]*"')
HOST_TRANSFER = "is_host_transfer=true"
WIDE = {"f64", "c128"}


@dataclasses.dataclass(frozen=True)
class LargeCopy:
  """Copies or transposes of one large array, in one training step of a device.

  array   its type, as in f32[8,1024]
  line    of our code that it comes from; "": the compiler names none
  gb      that they read and write in HBM

  >>> LargeCopy("f32[8,1024]", "transformer_jax/positions/rope.py:120", 12, 3.6).times
  12
  """

  array: str
  line: str
  times: float
  gb: float


@dataclasses.dataclass(frozen=True)
class StepFacts:
  """Facts of one training step on one device.

  cycles          {"products", "copies", "other"}: by the compiler's own estimate, which
                  has none of kernels
  kernels         calls of kernels
  copies          copies and transposes of arrays above 16 MiB, most bytes first
  overlap         of the collectives, by kind
  undonated       bytes of results that get memory of their own: metrics, and parameters
                  and moments where these are not updated in place
  host            instructions that wait for the host
  float64         instructions with numbers of 64 bits
  products        that run; a product divided by devices runs as often as it has parts
  float32         share of the operations of products whose operands are float32
  logits          bytes of the largest array of logits

  >>> StepFacts(cycles={"products": 3.0, "copies": 1.0}).share("copies")
  0.25
  """

  cycles: dict[str, float] = dataclasses.field(default_factory=dict)
  kernels: float = 0
  copies: tuple[LargeCopy, ...] = ()
  overlap: dict[str, Overlap] = dataclasses.field(default_factory=dict)
  undonated: float = 0
  host: tuple[str, ...] = ()
  float64: tuple[str, ...] = ()
  products: float = 0
  float32: float = 0
  logits: float = 0

  def share(self, kind: str) -> float:
    """Returns the share of the estimated cycles."""
    total = sum(self.cycles.values())
    return self.cycles.get(kind, 0.0) / total if total else 0.0

  @property
  def copied_gb(self) -> float:
    """Returns what the large copies read and write."""
    return sum(each.gb for each in self.copies)

  def figures(self) -> dict[str, Any]:
    """Returns all facts as numbers, texts and lists of these."""
    return dataclasses.asdict(self) | {"copied_gb": self.copied_gb}


def facts(text: str, steps: int, vocabulary: int = 0, width: int = 0) -> StepFacts:
  """Returns the facts of a program.

  text         of the compiled program
  steps        training steps of the program
  vocabulary   size of a device's part of the vocabulary: tells logits; 0: unknown
  width        of the model: an array with both is a table of embeddings
  """
  module, lines = parse(text), SourceLines(text)
  visited = list(traffic.visits(module, module.entry))
  flops = _product_sizes(module, visited)
  return StepFacts(
    cycles={kind: n / steps for kind, n in _cycles(module, visited).items()},
    kernels=sum(times * (KERNEL in each.rest) for times, each in _instructions(visited))
    / steps,
    copies=tuple(_large_copies(module, visited, lines, steps)),
    overlap={
      kind: Overlap(each.sent / steps, each.beside / steps)
      for kind, each in overlaps(module).items()
    },
    undonated=_undonated(module, text),
    host=tuple(_host(module)),
    float64=tuple(_wide(module)),
    products=sum(times for times, _, _ in _products(module, visited)) / steps,
    float32=flops["f32"] / sum(flops.values()) if flops else 0.0,
    logits=_largest_logits(module, lines, vocabulary, width) if vocabulary else 0,
  )


Visited = Sequence[tuple[Computation, float, bool]]


def _instructions(visited: Visited) -> Iterator[tuple[float, Instruction]]:
  """Yields (times, instruction) of all that run, those of fusions left out."""
  for computation, times, _ in visited:
    for each in computation.instructions.values():
      yield times, each


def _cycles(module: Module, visited: Visited) -> dict[str, float]:
  """Returns the compiler's estimates, by what an instruction does."""
  found: dict[str, float] = defaultdict(float)
  for times, each in _instructions(visited):
    cycles = each.attribute(r'"estimated_cycles":"(\d+)"')
    if cycles:
      kind = "copies" if _only_moves(module, each) else "other"
      kind = "products" if computes(module, each) else kind
      found[kind] += times * int(cycles)
  return dict(found)


def _only_moves(module: Module, each: Instruction) -> bool:
  """Returns whether an instruction moves an array and computes nothing."""
  if each.op != "fusion":
    return each.op in COPIES
  inside = [module.computations[name] for name in each.called]
  return all(x.op in MOVES for one in inside for x in one.instructions.values())


def _large_copies(
  module: Module, visited: Visited, lines: SourceLines, steps: int
) -> list[LargeCopy]:
  """Returns copies of large arrays in HBM, those of one line and type together."""
  found: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0.0])
  for computation, times, _ in visited:
    for each in computation.instructions.values():
      slow = [x for x in each.arrays if not x.fast and x.bytes >= LARGE]
      if not slow or not _only_moves(module, each):
        continue
      moved = traffic.moved(module, computation, each)
      if moved >= LARGE:  # and no update of a part
        total = found[_type(slow[0]), _line(each, computation, lines)]
        total[0] += times / steps
        total[1] += times * moved / 1e9 / steps
  copies = [LargeCopy(*key, *total) for key, total in found.items()]
  return sorted(copies, key=lambda each: -each.gb)


def _type(array: Array) -> str:
  return f"{array.kind}[{','.join(map(str, array.sizes))}]"


def _line(each: Instruction, computation: Computation, lines: SourceLines) -> str:
  """Returns the line of an instruction, or of one of its operands, or ""."""
  for one in (each, *(computation.instructions[name] for name in each.operands)):
    frame = one.attribute(r"stack_frame_id=(\d+)")
    line = lines.of_frame(int(frame), PACKAGE) if frame else ""
    if line:
      return line
  return ""


def _undonated(module: Module, text: str) -> float:
  """Returns the bytes of results that do not take the memory of an argument."""
  head = text.partition("\n")[0]
  aliases = re.search(r"input_output_alias=\{(.*?) \}, ", head)
  shared = {int(n) for n in re.findall(r"\{(\d+)\}: \(", aliases[1] if aliases else "")}
  results = enumerate(module.entry.root.arrays)
  return sum(array.bytes for number, array in results if number not in shared)


def _host(module: Module) -> Iterator[str]:
  """Yields the instructions that exchange something with the host."""
  for computation in module.computations.values():
    for each in computation.instructions.values():
      calls = each.op == "custom-call" and HOST_CALL.search(each.rest)
      if each.op in HOST or HOST_TRANSFER in each.rest or calls:
        yield f"{each.op} {each.name}"


def _wide(module: Module) -> Iterator[str]:
  """Yields the instructions whose results have numbers of 64 bits."""
  for computation in module.computations.values():
    for each in computation.instructions.values():
      if any(array.kind in WIDE for array in each.arrays):
        yield f"{each.op} {each.name}"


def _products(
  module: Module, visited: Visited
) -> Iterator[tuple[float, Instruction, list[Array]]]:
  """Yields (times, product, its two operands)."""
  for computation, times, _ in visited:
    for _, inner, each in traffic.with_fused(module, computation):
      if each.op in PRODUCTS:
        yield times, each, [inner.instructions[x].arrays[0] for x in each.operands]


def _product_sizes(module: Module, visited: Visited) -> dict[str, float]:
  """Returns the multiplications of all products, by the operands' type."""
  found: dict[str, float] = defaultdict(float)
  for times, each, arrays in _products(module, visited):
    both = all(array.kind == "f32" for array in arrays)
    found["f32" if both else "other"] += times * multiplications(each, arrays)
  return found


def multiplications(each: Instruction, arrays: Sequence[Array]) -> float:
  """Returns the multiplications of a product: for each number of its result, the sum's.

  arrays   its two operands

  TPUs write a product as a convolution: it sums over the input features and along axes
  of its window that are shorter in the result; axes of a batch are as long there.
  """
  (result, *_), (first, second) = each.arrays, arrays
  summed = each.attribute(r"lhs_contracting_dims=\{([\d,]+)\}")
  if summed:
    lengths = [float(first.sizes[int(n)]) for n in summed.split(",")]
  elif labels := re.search(r"dim_labels=\w+_(\w+)->(\w+)", each.rest):
    inside = dict(zip(labels[1], second.sizes, strict=True))
    after = dict(zip(labels[2], result.sizes, strict=True))
    along = [max(1.0, inside[axis] / after[axis]) for axis in inside if axis.isdigit()]
    lengths = [float(inside["i"]), *along]
  else:
    lengths = []
  return math.prod([*lengths, *result.sizes])


def _largest_logits(
  module: Module, lines: SourceLines, vocabulary: int, width: int
) -> float:
  """Returns the bytes of the largest array of the loss that has a vocabulary's axis."""
  largest = 0
  for computation in module.computations.values():
    for each in computation.instructions.values():
      frame = each.attribute(r"stack_frame_id=(\d+)")
      if frame and lines.of_frame(int(frame), PACKAGE).startswith(LOSS):
        for array in each.arrays:
          if vocabulary in array.sizes and width not in array.sizes:
            largest = max(largest, array.bytes)
  return largest
