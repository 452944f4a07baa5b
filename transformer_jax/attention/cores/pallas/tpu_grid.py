"""Grid of a TPU kernel: the order of tiles, and the blocks that each step reads."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from transformer_jax.attention.cores.pallas import layout

LARGE = 2**20  # bytes of a table


def is_large(x) -> bool:
  """Returns whether a head's table takes much of fast memory."""
  return math.prod(x.shape) * x.dtype.itemsize > LARGE


class TileGrid:
  """Grid of tiles: the order of visits and the block that each step reads.

  work      static description of the call
  where     block mask and `shift_B`
  by_keys   False: rows of tiles one after the other. True: columns, for each head of
            keys, and of a column all rows of each of its heads of queries: gradients of
            keys, and those of a head's tables, stay in fast memory
  """

  def __init__(self, work, where, by_keys: bool):
    self.work, self.by_keys = work, by_keys
    rows, columns = work.L // work.tile.L, work.M // work.tile.M
    self.rows, self.group = rows, work.H // work.G if by_keys else 1
    self.sizes = (work.B, work.H, rows, columns)
    self.semantics = ("parallel", "parallel", "parallel", "arbitrary")
    mask_Bnn = where["mask_Bnn"]
    if by_keys:
      self.sizes = (work.G, work.B, columns, self.group * rows)
      self.semantics = ("parallel", "arbitrary", "arbitrary", "arbitrary")
      mask_Bnn = jnp.swapaxes(mask_Bnn, 1, 2)
    self.shared = mask_Bnn.shape[0] == 1
    self.fetch, self.shift = layout.to_fetch(mask_Bnn).reshape(-1), where["shift_B"]

  def needed(self, ids, fetch):
    b, _, i, j = self.place(ids)
    return fetch[self._entry(b, i, j)] == (i if self.by_keys else j)

  def base(self, ids, shift):
    """Returns the index of a tile's first query minus that of its first key."""
    b, _, i, j = self.place(ids)
    own = shift[0 if shift.shape[0] == 1 else b]
    return i * self.work.tile.L - j * self.work.tile.M + own

  def place(self, ids):
    """Returns batch row, head of queries, row and column of the tile of a step."""
    if not self.by_keys:
      return ids
    g, b, j, step = ids
    if self.group == 1:
      return b, g, step, j
    h = g * self.group + jax.lax.div(step, self.rows)
    return b, h, jax.lax.rem(step, self.rows), j

  def of_group(self, ids):
    """Returns the number of the head of queries among those of its head of keys."""
    return 0 if self.group == 1 else jax.lax.div(ids[3], self.rows)

  def starts_head(self, ids):
    """Returns whether a step is the first of its head in a row or column of tiles."""
    if self.group == 1:
      return ids[3] == 0
    return jax.lax.rem(ids[3], self.rows) == 0

  def queries(self, x, name):
    return self._spec(x, name, self.work.tile.L, by_row=True)

  def keys(self, x, name):
    return self._spec(x, name, self.work.tile.M, by_row=False)

  def table(self, x):
    zeros = (0,) * (len(x.shape) - 1)

    def head(*ids):
      return (self.place(ids[:4])[1], *zeros)

    # A head's tables stay for many tiles: a large one has no second buffer.
    own = jax.ShapeDtypeStruct(x.shape[1:], x.dtype)
    once = pl.Buffered(1) if is_large(own) else None
    return pl.BlockSpec((None, *x.shape[1:]), head, pipeline_mode=once)

  def outputs(self, outs):
    """Returns the specifications of a kernel's outputs, as a tree like theirs."""
    own = self.keys if self.by_keys else self.queries
    specs = {n: own(x, n) for n, x in outs.items() if n not in ("data", "tables")}
    if "data" in outs:
      specs["data"] = {n: own(x, n) for n, x in outs["data"].items()}
    if "tables" in outs:
      specs["tables"] = jax.tree.map(self._sums, outs["tables"])
    return specs

  def _sums(self, x):
    """Returns the specification of gradients of tables: those of a group together."""
    zeros = (0,) * (len(x.shape) - 1)
    return pl.BlockSpec((self.group, *x.shape[1:]), lambda *ids: (ids[0], *zeros))

  def _spec(self, x, name, size, by_row):
    """Returns the specification of an array of queries or keys.

    x        the array, [B, H, ...]
    name     its name
    size     tokens in a block
    by_row   whether tokens are queries
    """
    H, last = x.shape[1], name in layout.VECTORS or layout.is_row(name)
    axis = 3 if last else 2
    block = [None, None, *x.shape[2:]]
    block[axis] = size

    def index(*step):
      *ids, fetch, _ = step
      b, h, i, j = self.place(ids)
      next_one = fetch[self._entry(b, i, j)]
      i, j = (next_one, j) if self.by_keys else (i, next_one)
      n, h = i if by_row else j, jax.lax.div(h * H, self.work.H)
      b = b if x.shape[0] > 1 else 0
      place: list[Any] = [b, h, 0, 0]
      place[axis] = n
      return tuple(place)

    return pl.BlockSpec(tuple(block), index)

  def _entry(self, b, i, j):
    """Returns where the list of tiles to fetch has a tile."""
    outer, inner = (j, i) if self.by_keys else (i, j)
    size = self.rows if self.by_keys else self.sizes[3]
    return ((0 if self.shared else b) * self.sizes[2] + outer) * size + inner
