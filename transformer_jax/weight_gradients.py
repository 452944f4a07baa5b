"""Gradients of weights, summed over the devices that split a batch: each gets its part.

Asked for a part of a sum, the compiler divides the product before it; asked for the
whole first, it sums by an all-reduce, which sends twice as much.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from transformer_jax.axes import axes_of
from transformer_jax.devices import dividing, free_axes, gather_matrix, platform
from transformer_jax.mesh_shape import MATRIX_RULES, ROWS, RULES, SEED, SEQUENCE

FSDP = MATRIX_RULES["D"]
LANES = 128  # columns of a TPU's tile of memory
ONE_RING = 8  # devices over which TPUs sum by one reduce-scatter; over more, all-reduce
SumOverDevices = Callable[[jax.Array], jax.Array]  # over devices
Product = Callable[[jax.Array, jax.Array, SumOverDevices], jax.Array]


def splits_width(letters: str, alone: bool = False) -> bool:
  """Returns whether the mesh in use splits the width of a matrix.

  letters   axis letters of the matrix
  alone     and none of its other axes

  >>> splits_width("DF")
  False
  """
  free = free_axes()
  others = any(free.get(RULES[letter], 1) > 1 for letter in letters if letter in RULES)
  matrix = len(letters) > 1 and "D" in letters
  return matrix and free.get(FSDP, 1) > 1 and not (alone and others)


def sum_into_parts(
  product: Product,
  x: jax.Array,
  d_y: jax.Array,
  shape: Sequence[int],
  letters: str,
  tokens: int,
) -> jax.Array:
  """Returns the gradient of a matrix, summed over all tokens; devices have parts of it.

  product   (x, d_y, sums) -> d_w of the tokens of one device, which is passed through
            `sums` while the model's width is its first or last axis
  x, d_y    input and gradient of the output: axes of tokens, then the matrix's first
            and its last ones
  shape     of the matrix
  letters   axis letters of the matrix; "": unknown
  tokens    axes of tokens, with which x and d_y start

  The whole sum on each device where `fsdp` splits no rows, or an axis between others.
  """
  free, inputs, outputs = free_axes(), x.ndim - tokens, d_y.ndim - tokens
  rows = dividing(free, x.shape[0], *ROWS) or ()
  end = 0 if letters.startswith("D") else len(letters) - 1
  devices = free.get(FSDP, 1)
  if "D" not in letters[end:] or devices == 1 or FSDP not in rows:
    return gather_matrix(product(x, d_y, lambda d_w: d_w), letters)
  text = dividing(free, x.shape[1], SEQUENCE) if tokens > 1 else None
  start = (rows, text, *[None] * tokens)[:tokens]
  by_letter = [
    dividing(free, size, RULES[letter]) if letter in RULES else None
    for letter, size in zip(letters, shape, strict=True)
  ]
  d_w = [FSDP if n == end else axes for n, axes in enumerate(by_letter)]
  others = tuple(axis for axis in (*rows, *(text or ())) if axis != FSDP)
  sums = _sums(devices, others, first=end == 0)
  run = jax.shard_map(
    lambda x, d_y: product(x, d_y, sums),
    in_specs=(
      PartitionSpec(*start, *by_letter[:inputs]),
      PartitionSpec(*start, *by_letter[len(letters) - outputs :]),
    ),
    out_specs=PartitionSpec(*d_w),
    axis_names={*free},
    check_vma=False,
  )
  return run(x, d_y)


def on_parts_of_batch(
  function: Callable[..., tuple[Any, jax.Array, Any]],
  whole_VD: jax.Array,
  tokens: Sequence[jax.Array],
) -> tuple[Any, jax.Array, Any]:
  """Returns (sums, d_DV, by_token) of all examples, of which each device computes its.

  function   (whole_VD, *tokens) -> (sums, d_DV, by_token) of some examples: sums over
             these, the gradient of a matrix, arrays [B, L, ...]
  whole_VD   a matrix that every device has
  tokens     arrays [B, L, ...]

  Where `fsdp` splits batches and nothing else is split; elsewhere by one call.
  """
  free = free_axes()
  rows = dividing(free, tokens[0].shape[0], *ROWS) or ()
  devices, split = free.get(FSDP, 1), math.prod(free.get(axis, 1) for axis in ROWS)
  fits = FSDP in rows and whole_VD.shape[-1] % devices == 0
  everything = math.prod(n for axis, n in free.items() if axis != SEED)
  if platform() == "cpu" or devices == 1 or split < everything or not fits:
    return function(whole_VD, *tokens)

  def of_device(whole_VD, *tokens):
    sums, d_DV, by_token = function(whole_VD, *tokens)
    others = tuple(axis for axis in rows if axis != FSDP)
    return jax.lax.psum(sums, rows), _sums(devices, others, first=True)(d_DV), by_token

  run = jax.shard_map(
    of_device,
    in_specs=(PartitionSpec(), *[PartitionSpec(rows)] * len(tokens)),
    out_specs=(PartitionSpec(), PartitionSpec(FSDP), PartitionSpec(rows)),
    axis_names={*free},
    check_vma=False,
  )
  return run(whole_VD, *tokens)


def with_whole_weights(
  function: Callable[[Any, Any], Any], weights: dict[str, jax.Array], tokens: Any
) -> Any:
  """Returns function(weights, tokens), of which each device computes its own examples.

  function   also of a part of the examples
  weights    by name. They are gathered before, and their gradients are summed into
             parts after: once, however often a loop reads them
  tokens     a tree of arrays [B, ...], as the result

  Where `fsdp` splits batches and nothing else is split; elsewhere by one call.
  """
  free, B = free_axes(), jax.tree.leaves(tokens)[0].shape[0]
  rows = dividing(free, B, *ROWS) or ()
  split = {name: axes_of(name) for name in weights if splits_width(axes_of(name))}
  everything = math.prod(n for axis, n in free.items() if axis != SEED)
  alone = math.prod(free[axis] for axis in rows) == everything
  if platform() == "cpu" or not split or not alone:
    return function(weights, tokens)
  devices = free[FSDP]

  def of_device(weights, tokens):
    whole = {
      name: _gathered(weights[name], letters.index("D"), devices)
      for name, letters in split.items()
    }
    return function(weights | whole, tokens)

  specs = {
    name: PartitionSpec(*[None] * split[name].index("D"), FSDP)
    if name in split
    else PartitionSpec()
    for name in weights
  }
  run = jax.shard_map(
    of_device,
    in_specs=(specs, PartitionSpec(rows)),
    out_specs=PartitionSpec(rows),
    axis_names={*free},
    check_vma=False,
  )
  return run(weights, tokens)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _gathered(w: jax.Array, axis: int, devices: int) -> jax.Array:
  """Returns the whole of a matrix, of which each of some devices has a part.

  axis   that is split, the first or the last; of the gradient each gets its part
  """
  return jax.lax.all_gather(w, FSDP, axis=axis, tiled=True)


_gathered.defvjp(
  lambda w, axis, devices: (_gathered(w, axis, devices), None),
  lambda axis, devices, _, d_w: (_sums(devices, (), first=axis == 0)(d_w),),
)


def _sums(devices: int, others: tuple[str, ...], first: bool) -> SumOverDevices:
  """Returns the function that sums over `fsdp`, of which each gets a part, and others.

  first   parts are of the first axis; False: of the last
  """
  phases = _phases(devices)

  def parts(d_w):
    if not first and d_w.shape[-1] % (devices * LANES):
      # TPUs sum parts of columns that fill no tile by an all-reduce, and parts of rows
      # by a reduce-scatter.
      of_rows = _sums(devices, others, first=True)
      return jnp.moveaxis(of_rows(jnp.moveaxis(d_w, -1, 0)), 0, -1)
    if first:  # an axis for each phase, so that no part is padded; the product has one
      d_w = jax.lax.optimization_barrier(d_w)
      d_w = d_w.reshape(*map(len, (p[0] for p in phases)), -1, *d_w.shape[1:])
    for groups in phases:
      d_w = jax.lax.psum_scatter(
        d_w, FSDP, scatter_dimension=0 if first else d_w.ndim - 1,
        axis_index_groups=groups if len(phases) > 1 else None, tiled=not first,
      )  # fmt: skip
    return jax.lax.psum(d_w, others) if others else d_w

  return parts


def _phases(devices: int) -> list[list[list[int]]]:
  """Returns groups of devices that sum together, for one sum after another.

  TPUs sum along rows of their torus: over more by an all-reduce. Here over columns of a
  square of devices, and then, what is left, over rows.

  >>> _phases(4)
  [[[0, 1, 2, 3]]]
  """
  every = list(range(devices))
  width = next(n for n in range(math.isqrt(devices), 0, -1) if devices % n == 0)
  if platform() != "tpu" or devices <= ONE_RING or width == 1:
    return [[every]]
  length = devices // width
  return [
    [every[n::length] for n in range(length)],
    [every[n : n + length] for n in range(0, devices, length)],
  ]
