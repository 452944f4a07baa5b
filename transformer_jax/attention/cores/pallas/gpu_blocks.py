"""Blocks of arrays that a GPU program reads and writes, and padding of tables."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jax.experimental import pallas as pl

from transformer_jax.attention.cores.pallas import layout
from transformer_jax.attention.cores.pallas.primitives import power_of_two


class BlockSpecs:
  """Block specifications of a program: one block of its side, all of the other."""

  def __init__(self, work, by_keys):
    self.work, self.by_keys = work, by_keys

  def queries(self, x, name):
    return self._spec(x, name, 2, None if self.by_keys else self.work.tile.L)

  def keys(self, x, name):
    axis = 3 if layout.is_row(name) else 2
    return self._spec(x, name, axis, self.work.tile.M if self.by_keys else None)

  def own(self, x, name):
    return self.keys(x, name) if self.by_keys else self.queries(x, name)

  def outputs(self, outs):
    """Returns the specifications of a kernel's outputs, as a tree like theirs."""
    if "side" not in outs:
      return {n: self.own(x, n) for n, x in outs.items()}
    return {
      "side": layout.by_name(self.own, outs["side"]),
      "tables": [self.sum(x) for x in outs["tables"]],
    }

  def visits(self, x):
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

  def _spec(self, x, name, axis, size):
    """Returns the specification of an array, of which vectors are [B, L, H, K].

    x      the array
    name   its name
    axis   that of tokens, in other arrays
    size   tokens in a block; None: all of them
    """
    heads, axis = (2, 1) if name in layout.VECTORS else (1, axis)
    block = [*x.shape]
    block[0] = block[heads] = None
    block[axis] = size or x.shape[axis]

    def index(n, h, b):
      place = [b if x.shape[0] > 1 else 0, 0, 0, 0]
      place[heads] = h * x.shape[heads] // self.work.H
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

  def part(x, name):
    row = are_keys and layout.is_row(name)
    return View(x, (rest, places) if row else (places, rest))

  return layout.by_name(part, refs)


def visits(mask_Bnn):
  """Returns visited_BnN: for each block of one side those of the other, then how many.

  A program's loop has as many steps as it has visible tiles: masks cost no branch.
  """
  hidden_Bnn = jnp.logical_not(mask_Bnn)
  order_Bnn = jnp.argsort(hidden_Bnn, axis=2, stable=True)
  count_Bn1 = jnp.sum(mask_Bnn, axis=2, keepdims=True)
  return jnp.concatenate([order_Bnn, count_Bn1], axis=2).astype(jnp.int32)


def padded_to_power_of_two(table):
  """Pads the axes of a table but that of heads: Triton takes powers of two."""
  more = [power_of_two(n) - n for n in table.shape[1:]]
  return jnp.pad(table, [(0, 0), *((0, n) for n in more)])
