"""Bytes that a program with Pallas kernels moves: blocks of grids, and arrays around.

XLA's "bytes accessed" takes each operand of a kernel once, or believes the kernel's own
estimate. Here the grid is walked: a block is moved anew when its index differs from
that of the step before, as the pipeline of a TPU does. Index maps read prefetched
scalars, so the part of the program that makes those is evaluated.
"""

import dataclasses
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.estimating.hlo import parse
from experiments.estimating.traffic import COPIES, moved, traffic

LANES, SUBLANES = 128, 8  # of a tile of memory, in numbers of 32 bits
KERNEL = 'custom_call_target="tpu_custom_call"'
UNKNOWN = object()  # value of a variable that depends on the program's arguments
INNER = "jaxpr", "call_jaxpr"  # parameters with the body of a call


@dataclasses.dataclass(frozen=True)
class KernelTraffic:
  """Bytes that the pipeline of one kernel moves.

  grid      sizes of the grid
  blocks    bytes of each array's blocks, inputs first
  visited   steps at which an input's block changes; others are skipped or at rest

  >>> KernelTraffic((2, 2), (64, 32), 4).bytes
  96
  """

  grid: tuple[int, ...]
  blocks: tuple[int, ...]
  visited: int

  @property
  def bytes(self) -> int:
    return sum(self.blocks)


def of_kernels(program: Any) -> list[KernelTraffic]:
  """Returns the traffic of the kernels of a traced program, in their order.

  program   its ClosedJaxpr
  """
  found: list[KernelTraffic] = []
  unknown = [UNKNOWN] * len(program.jaxpr.invars)
  with jax.default_device(jax.devices("cpu")[0]):
    _evaluate(program, unknown, found)
  return found


def around_kernels(text: str, fast: bool = False) -> float:
  """Returns bytes that a compiled program moves outside of kernels, from and to HBM.

  text   of the compiled program
  fast   count arrays in fast memory, too, as if they lay in HBM

  Copies that only bring an operand of a kernel nearer are left out: the kernel's own
  reads are counted, wherever its operands lie.
  """
  text = re.sub(r"S\(\d+\)", "", text) if fast else text
  module = parse(text)
  apart = sum(
    moved(module, module.entry, each)
    for each in module.entry.instructions.values()
    if each.op in COPIES or KERNEL in each.rest
  )
  return traffic(text).hbm - apart


def _evaluate(closed: Any, values: list[Any], found: list[KernelTraffic]) -> list[Any]:
  """Returns the outputs of a program, UNKNOWN where they depend on unknown inputs."""
  jaxpr = closed.jaxpr
  known = dict(zip(jaxpr.constvars, closed.consts, strict=True))
  known |= zip(jaxpr.invars, values, strict=True)

  def read(v):
    return v.val if hasattr(v, "val") else known[v]

  for eqn in jaxpr.eqns:
    inputs = [read(v) for v in eqn.invars]
    known |= zip(eqn.outvars, _apply(eqn, inputs, found), strict=True)
  return [read(v) for v in jaxpr.outvars]


def _apply(eqn: Any, inputs: list[Any], found: list[KernelTraffic]) -> list[Any]:
  if eqn.primitive.name == "pallas_call":
    found.append(_kernel(eqn.params["grid_mapping"], inputs))
    return [UNKNOWN] * len(eqn.outvars)
  inner = next((eqn.params[n] for n in INNER if n in eqn.params), None)
  loops = eqn.primitive.name in ("scan", "while", "cond")
  if hasattr(inner, "consts") and not loops:
    return _evaluate(inner, inputs, found)
  if any(x is UNKNOWN for x in inputs):
    return [UNKNOWN] * len(eqn.outvars)
  out = eqn.primitive.bind(*inputs, **eqn.primitive.get_bind_params(eqn.params))
  return list(out) if eqn.primitive.multiple_results else [out]


def _kernel(mapping: Any, inputs: list[Any]) -> KernelTraffic:
  """Returns the traffic of one kernel.

  mapping   Pallas's GridMapping
  inputs    values of the operands, of which those prefetched must be known
  """
  grid = tuple(int(n) for n in mapping.grid)
  first = mapping.num_index_operands
  scalars, arrays = inputs[:first], mapping.block_mappings
  if any(x is UNKNOWN for x in scalars):
    raise ValueError(
      "the scalars that a kernel prefetches depend on the program's arguments, so its"
      " blocks are not known; make the coordinates of tokens inside of the program"
    )
  steps = np.indices(grid).reshape(len(grid), -1).astype(np.int32)

  def indices(step):
    return [x.compute_start_indices_interpret(tuple(step), *scalars) for x in arrays]

  starts = jax.jit(lambda steps: jax.lax.map(indices, steps))(jnp.asarray(steps.T))
  changed = [_changes(np.stack(each, axis=1)) for each in starts]
  blocks = [
    _padded(x.ref_aval.shape, x.array_aval.dtype) * int(changes.sum())
    for x, changes in zip(arrays, changed, strict=True)
  ]
  once = sum(np.asarray(x).nbytes for x in scalars)
  inward = np.any(changed[: mapping.num_inputs], axis=0)
  return KernelTraffic(grid, (once, *blocks), int(inward.sum()))


def _changes(starts: np.ndarray) -> np.ndarray:
  """Returns for each step whether its block is another than that of the step before."""
  first = np.ones(1, bool)
  return np.concatenate([first, np.any(starts[1:] != starts[:-1], axis=1)])


def _padded(shape: tuple[int, ...], dtype: Any) -> int:
  """Returns the bytes of a block in tiles of memory.

  >>> _padded((512, 128), "float32"), _padded((512, 1), "float32")
  (262144, 262144)
  >>> _padded((3, 512), "float32")
  8192
  """
  *outer, rows, columns = (1, 1, *shape)
  tile = min(SUBLANES, 2 ** math.ceil(math.log2(rows)))
  rows, columns = -(-rows // tile) * tile, -(-columns // LANES) * LANES
  return math.prod(outer) * rows * columns * np.dtype(dtype).itemsize
