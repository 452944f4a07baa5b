"""Cores on a mesh: each device attends with its own examples and heads.

The compiler cannot split a core that visits sequences and heads one after another, or
that is one kernel: it would give every device the whole batch.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from transformer_jax.attention.cores.context import Context
from transformer_jax.axes import axes_of
from transformer_jax.devices import free_axes
from transformer_jax.mesh_shape import ROWS
from transformer_jax.positions import Coords

HEADS = "tensor"  # mesh axis that splits heads
Split = dict[str, tuple[str, ...]]  # mesh axes by the axis letter that they split


def on_each_device(attend):
  """Wraps `Core.attend`: each device of the mesh in context, if any, attends by itself.

  For cores that refuse dropout.
  """

  @functools.wraps(attend)
  def attend_by_device(self, q_BLHK, k_BMGK, v_BMGE, context):
    if math.prod(free_axes().values()) == 1:
      return attend(self, q_BLHK, k_BMGK, v_BMGE, context)
    split = _split(q_BLHK.shape, k_BMGK.shape[2], v_BMGE.shape[2])
    queries, keys, values = (_heads(split, x) for x in (q_BLHK, k_BMGK, v_BMGE))
    run = jax.shard_map(
      functools.partial(attend, self),
      in_specs=(queries, keys, values, _of_context(split, context)),
      out_specs=queries,
      axis_names={*free_axes()},  # of all: no compiler splits a kernel
      check_vma=False,
    )
    return run(q_BLHK, k_BMGK, v_BMGE, context)

  return attend_by_device


def heads_split(q_shape: tuple[int, ...], *groups: int) -> int:
  """Returns the number of devices that split the heads of a call.

  q_shape   of the queries, [B, L, H, K]
  groups    numbers of heads of keys and of values
  """
  return free_axes()[HEADS] if "H" in _split(q_shape, *groups) else 1


def _split(q_shape, *groups) -> Split:
  """Returns {axis letter: mesh axes} of the axes that are split.

  A single key head is not split: queries on all devices read it.
  """
  free = {axis: size for axis, size in free_axes().items() if size > 1}
  by_rows, heads = tuple(axis for axis in ROWS if axis in free), free.get(HEADS, 1)
  rows = math.prod(free[axis] for axis in by_rows)
  split: Split = {"B": by_rows} if by_rows and q_shape[0] % rows == 0 else {}
  if heads > 1 and q_shape[2] % heads == 0:
    split |= {"H": (HEADS,)} if all(n % heads == 0 or n == 1 for n in groups) else {}
  return split


def _heads(split: Split, x_BLHK: jax.Array) -> PartitionSpec:
  """Returns the sharding of queries, keys or values; a single head is not split."""
  heads = split.get("H") if x_BLHK.shape[2] > 1 else None
  return PartitionSpec(split.get("B"), None, heads)


def _of_context(split: Split, context: Context) -> Context:
  """Returns the shardings of the arrays of a context, as a context."""
  by_head, one = PartitionSpec(split.get("H")), PartitionSpec()
  return Context(
    q_at=_of_coords(split, context.q_at),
    k_at=_of_coords(split, context.k_at),
    position=_of_params(split, context.position),
    scale=jax.tree.map(lambda x: by_head if jnp.ndim(x) else one, context.scale),
    variant=_of_params(split, context.variant),
  )


def _of_coords(split: Split, at: Coords) -> Coords:
  batch = split.get("B")
  specs = jax.tree.map(lambda x: PartitionSpec(batch if len(x) > 1 else None), at)

  def of(data: dict[str, jax.Array]) -> dict[str, PartitionSpec]:
    return {name: _by_name(split, name, x) for name, x in data.items()}

  return specs.replace(data=of(at.data), variant_data=of(at.variant_data))


def _of_params(split: Split, bound: Any) -> Any:
  """Splits the parameters of a bound encoding or variant."""
  specs = {name: _by_name(split, name, x) for name, x in bound.params.items()}
  return dataclasses.replace(bound, params=specs)


def _by_name(split: Split, name: str, x: jax.Array) -> PartitionSpec:
  """Splits by the letters of a name; an axis of length one is shared."""
  letters = axes_of(name)
  pairs = zip(letters, x.shape[x.ndim - len(letters) :], strict=True)
  return PartitionSpec(*(split.get(a) if n > 1 else None for a, n in pairs))
