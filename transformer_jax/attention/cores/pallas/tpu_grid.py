"""Grid of a TPU kernel: the order of tiles, and the blocks that each step reads."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from transformer_jax.attention.cores.pallas import layout


class TileGrid:
  """Grid of tiles: the order of visits and the block that each step reads.

  work      static description of the call
  where     block mask and `shift_B`
  by_keys   False: rows of tiles one after the other. True: columns, head after head, so
            that gradients of a head's tables stay in fast memory
  """

  def __init__(self, work, where, by_keys: bool):
    self.work, self.by_keys = work, by_keys
    rows, columns = work.L // work.tile.L, work.M // work.tile.M
    self.sizes = (work.B, work.H, rows, columns)
    self.semantics = ("parallel", "parallel", "parallel", "arbitrary")
    mask_Bnn = where["mask_Bnn"]
    if by_keys:
      self.sizes = (work.H, work.B, columns, rows)
      self.semantics = ("parallel", "arbitrary", "arbitrary", "arbitrary")
      mask_Bnn = jnp.swapaxes(mask_Bnn, 1, 2)
    self.shared = mask_Bnn.shape[0] == 1
    self.fetch, self.shift = layout.to_fetch(mask_Bnn).reshape(-1), where["shift_B"]

  def needed(self, ids, fetch):
    return fetch[self._entry(*ids)] == ids[3]

  def base(self, ids, shift):
    """Returns the index of a tile's first query minus that of its first key."""
    b, _, i, j = self._batch_first(*ids)
    own = shift[0 if shift.shape[0] == 1 else b]
    return i * self.work.tile.L - j * self.work.tile.M + own

  def queries(self, x, name):
    return self._spec(x, 2, self.work.tile.L, lambda b, h, i, j: i)

  def keys(self, x, name):
    return self._spec(
      x, 3 if layout.is_row(name) else 2, self.work.tile.M, lambda b, h, i, j: j
    )

  def table(self, x):
    zeros = (0,) * (len(x.shape) - 1)

    def head(*ids):
      return (self._batch_first(*ids[:4])[1], *zeros)

    return pl.BlockSpec((None, *x.shape[1:]), head)

  def outputs(self, outs):
    """Returns the specifications of a kernel's outputs, as a tree like theirs."""
    own = self.keys if self.by_keys else self.queries
    specs = {n: own(x, n) for n, x in outs.items() if n not in ("data", "tables")}
    if "data" in outs:
      specs["data"] = {n: own(x, n) for n, x in outs["data"].items()}
      specs["tables"] = [self.table(x) for x in outs["tables"]]
    return specs

  def _spec(self, x, axis, size, number):
    block = [None, None, *x.shape[2:]]
    block[axis] = size

    def index(*step):
      *ids, fetch, _ = step
      b, h, i, j = self._batch_first(*ids[:3], fetch[self._entry(*ids)])
      place: list[Any] = [b if x.shape[0] > 1 else 0, 0, 0, 0]
      place[1] = jax.lax.div(h * x.shape[1], self.work.H)
      place[axis] = number(b, h, i, j)
      return tuple(place)

    return pl.BlockSpec(tuple(block), index)

  def _batch_first(self, *ids):
    """Returns batch row, head, row and column of tiles."""
    if not self.by_keys:
      return ids
    h, b, j, i = ids
    return b, h, i, j

  def _entry(self, *ids):
    b = 0 if self.shared else ids[1 if self.by_keys else 0]
    return (b * self.sizes[2] + ids[2]) * self.sizes[3] + ids[3]
