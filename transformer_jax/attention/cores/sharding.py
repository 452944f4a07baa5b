"""Cores on a mesh: each device attends with the rows and heads that it has.

A core that visits sequences and heads one after another, or that is one kernel, cannot
be split by the compiler, which would give every device all the rows.
"""

import dataclasses
import functools
from typing import Any

import jax
from jax.sharding import AxisType, PartitionSpec

from transformer_jax.attention.cores.base import PLAIN
from transformer_jax.axes import axes_of

ROWS, HEADS = "data", "tensor"  # mesh axes


def on_each_device(call):
  """Wraps a core's call: its own part on each device of the mesh in context, if any."""

  @functools.wraps(call)
  def attend(self, q, k, v, q_at, k_at, position, scale=None, variant=PLAIN, drop=None):
    split = _split(q.shape, k.shape[2], v.shape[2])
    # Cores of this kind refuse dropout, by themselves.
    if not split or drop is not None:
      return call(self, q, k, v, q_at, k_at, position, scale, variant, drop)
    args = q, k, v, q_at, k_at, position, scale, variant
    specs = _specs(split, args)
    return jax.shard_map(
      functools.partial(call, self),
      in_specs=specs,
      out_specs=specs[0],
      axis_names=set(split.values()),
      check_vma=False,
    )(*args)

  return attend


def _split(q_shape, *groups) -> dict[str, str]:
  """Returns the mesh axis by which each axis letter is split, of those that can be.

  A single key head stays whole, for queries on all devices read it.
  """
  mesh = jax.sharding.get_abstract_mesh()
  free = {
    name: mesh.shape[name]
    for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True)
    if kind == AxisType.Auto and mesh.shape[name] > 1
  }
  rows, heads = free.get(ROWS, 1), free.get(HEADS, 1)
  split = {"B": ROWS} if rows > 1 and q_shape[0] % rows == 0 else {}
  if heads > 1 and q_shape[2] % heads == 0:
    split |= {"H": HEADS} if all(n % heads == 0 or n == 1 for n in groups) else {}
  return split


def _specs(split: dict[str, str], args: tuple) -> tuple[Any, ...]:
  """Returns how each argument is split; what its name gives no axes for stays whole."""
  rows, heads = split.get("B"), split.get("H")
  q, k, v, q_at, k_at, position, scale, variant = args
  vectors = lambda x: PartitionSpec(rows, None, heads if x.shape[2] > 1 else None)

  def named(name, x):
    """Splits by the letters of a name; an axis of length one is shared."""
    letters = axes_of(name)
    pairs = zip(letters, x.shape[x.ndim - len(letters) :], strict=True)
    return PartitionSpec(*(split.get(a) if n > 1 else None for a, n in pairs))

  def places(at):
    where = jax.tree.map(lambda x: PartitionSpec(rows if len(x) > 1 else None), at)
    return where.replace(data={name: named(name, x) for name, x in at.data.items()})

  def learned(bound):
    specs = {name: named(name, x) for name, x in bound.params.items()}
    return dataclasses.replace(bound, params=specs)

  per_head = PartitionSpec(heads) if getattr(scale, "ndim", 0) else PartitionSpec()
  specs = *map(vectors, (q, k, v)), places(q_at), places(k_at)
  return *specs, learned(position), per_head, learned(variant)
