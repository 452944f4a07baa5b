"""Blocks of arrays that a GPU program reads and writes, and padding of tables."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jax.experimental import pallas as pl

from transformer_jax.attention.cores.pallas import layout


class BlockSpecs:
  """Block specifications of a program: one block of its side, all of the other."""

  def __init__(self, work, by_keys):
    self.work, self.by_keys = work, by_keys

  def queries(self, x, name):
    return self._spec(x, 2, None if self.by_keys else self.work.tile.L)

  def keys(self, x, name):
    axis = 3 if layout.is_row(name) else 2
    return self._spec(x, axis, self.work.tile.M if self.by_keys else None)

  def own(self, x, name):
    return self.keys(x, name) if self.by_keys else self.queries(x, name)

  def outputs(self, outs):
    """Returns the specifications of a kernel's outputs, as a tree like theirs."""
    if "side" not in outs:
      return {n: self.own(x, n) for n, x in outs.items()}
    return {
      "side": {n: self.own(x, n) for n, x in outs["side"].items()},
      "tables": [self.sum(x) for x in outs["tables"]],
    }

  def flags(self, x):
    rows = x.shape[0] > 1
    return pl.BlockSpec((None, None, x.shape[2]), lambda n, h, b: (b * rows, n, 0))

  def table(self, x):
    zeros = (0,) * (len(x.shape) - 1)
    return pl.BlockSpec((None, *x.shape[1:]), lambda n, h, b: (h, *zeros))

  def sum(self, x):
    zeros = (0,) * (len(x.shape) - 3)
    return pl.BlockSpec(
      (None, None, None, *x.shape[3:]), lambda n, h, b: (b, h, n, *zeros)
    )

  def _spec(self, x, axis, size):
    block = [None, None, *x.shape[2:]]
    block[axis] = size or x.shape[axis]

    def index(n, h, b):
      place = [b if x.shape[0] > 1 else 0, h * x.shape[1] // self.work.H, 0, 0]
      place[axis] = n if size else 0
      return tuple(place)

    return pl.BlockSpec(tuple(block), index)


@dataclasses.dataclass(frozen=True, eq=False)
class View:
  """A part of a reference; Triton takes one index at a time."""

  ref: Any
  part: tuple

  def __getitem__(self, index):
    if index is Ellipsis:
      return self.ref[self.part]
    index = index if isinstance(index, tuple) else (index, slice(None))
    both = zip(self.part, index, strict=True)
    return self.ref[tuple(all if isinstance(n, slice) else n for all, n in both)]


def cut(refs, n, size, are_keys):
  """Returns the n-th block of queries, or of keys."""
  places, rest = pl.ds(n * size, size), slice(None)

  def part(name):
    return (rest, places) if are_keys and layout.is_row(name) else (places, rest)

  parts = {name: View(x, part(name)) for name, x in refs.items() if name != "data"}
  return parts | {"data": {}}


def padded_to_power_of_two(table):
  """Pads the last axis of a table: Triton takes powers of two."""
  N = table.shape[-1]
  pads = [(0, 0)] * (table.ndim - 1) + [(0, 2 ** (N - 1).bit_length() - N)]
  return jnp.pad(table, pads)
