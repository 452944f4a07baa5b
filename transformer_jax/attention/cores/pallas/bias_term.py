"""Term of a bias of positions alone, with its gradients: by bands, strips or tiles."""

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from transformer_jax.attention.cores.pallas.gather import fold, spread
from transformer_jax.attention.cores.pallas.lowering import Hook, trace
from transformer_jax.attention.cores.pallas.primitives import TableLookup
from transformer_jax.attention.cores.pallas.score_terms import Sizes, pull, shape

STRIP = 8  # rows at once where an encoding makes arrays of [L, M, W]
# Primitives as cheap as a lookup: no band is needed.
EASY = {
  *("abs", "add", "and", "broadcast_in_dim", "convert_element_type", "div", "eq", "ge"),
  *("gt", "le", "lt", "max", "min", "mul", "ne", "neg", "not", "or", "select_n"),
  *("sign", "sub"),
}


class BiasTerm:
  """Bias of positions alone, b_LM.

  encoding                   positional encoding
  own                        shapes of the parameters of a head
  sizes                      sizes of a tile
  q_pos_dtype, k_pos_dtype   types of positions
  ints                       whether positions are int32
  """

  def __init__(self, encoding, own, sizes: Sizes, q_pos_dtype, k_pos_dtype, ints: bool):
    def bias(own, at):
      pos_L, pos_M = at
      return encoding.bias(own["position"], pos_L, pos_M)

    pos_L, pos_M = shape((sizes.L,), q_pos_dtype), shape((sizes.M,), k_pos_dtype)
    self.tile = trace(bias, own, (pos_L, pos_M))
    self.strips = self.tile.depth > 2 and sizes.room
    if self.strips:
      self.tile = trace(bias, own, (shape((min(STRIP, sizes.L),), q_pos_dtype), pos_M))
    self.W = sizes.L + sizes.M
    self.band: Hook | None = None  # by distances, where the tile is a band
    bands = ints and sizes.room and encoding.relative
    if bands and not self.tile.ops <= EASY:
      distances = shape((1,), jnp.int32), shape((self.W,), jnp.int32)
      self.band = trace(bias, own, distances)
    self.hooks = [self.tile] + ([self.band] if self.band else [])
    self.ways = ("band", "loop") if self.band else (sizes.any_index,)
    self.room = self.strips

  def value(self, way, tables, given):
    L, M = given.pre_LM.shape
    if self.band is not None and way == "band":
      row_1W = self.band.inner(
        TableLookup("row", False), tables[1], self._distances(given)
      )
      return given.pre_LM + spread(jnp.broadcast_to(row_1W, (1, self.W)), L, M)
    if not self.strips:
      return given.pre_LM + self.tile.inner(
        TableLookup(way, False), tables[0], (given.pos_L, given.pos_M)
      )
    self._each_strip(L, lambda n, at, _: self._write(n, at, tables[0], given), 0)
    return given.pre_LM + given.room_LM[...]

  def pull(self, way, tables, given, d_LM):
    """Returns gradients of the tables, and the gradient of `pre_LM`, unchanged."""
    if self.band is not None and way == "band":
      at, d_1W = self._distances(given), fold(d_LM, self.W)
      d_table = _pull_spread(self.band, TableLookup("row"), tables[1], at, d_1W)
      return [_zeros(tables[0]), d_table], {"pre_LM": d_LM}
    rest = [_zeros(t) for t in tables[1:]]
    if not self.strips:
      at = given.pos_L, given.pos_M
      d_table = _pull_spread(self.tile, TableLookup(way), tables[0], at, d_LM)
      return [d_table, *rest], {"pre_LM": d_LM}
    given.room_LM[...] = d_LM

    def add(n, rows, sums):
      at = given.strip(rows), given.pos_M
      d_LM = given.room_LM[rows]
      more = pull(lambda t: self.tile.inner(TableLookup(way), t, at), tables[0], d_LM)
      return jax.tree.map(jnp.add, sums, more)

    sums = self._each_strip(d_LM.shape[0], add, _zeros(tables[0]))
    return [sums, *rest], {"pre_LM": d_LM}

  def _write(self, n, rows, tables, given):
    at = given.strip(rows), given.pos_M
    given.room_LM[rows] = self.tile.inner(TableLookup("loop", False), tables, at)
    return 0

  def _each_strip(self, L, step, start):
    size = min(STRIP, L)
    return jax.lax.fori_loop(
      0, L // size, lambda n, x: step(n, pl.ds(n * size, size), x), start
    )

  def _distances(self, given):
    """Returns positions of one query and W keys that have the distances of the band."""
    n_1W = jax.lax.broadcasted_iota(jnp.int32, (1, self.W), 1)
    ahead_1W = jnp.where(n_1W < given.pre_LM.shape[1], n_1W, n_1W - self.W)
    return jnp.zeros((1,), jnp.int32), (ahead_1W - given.base)[0]


def _pull_spread(hook, way, tables, at, d):
  """Returns gradients of the tables of a bias that is broadcast to the shape of `d`.

  hook     the traced bias
  way      table lookup of the kernel
  tables   tables that it reads
  at       positions of queries and keys
  d        gradient of the broadcast bias
  """
  return pull(lambda t: jnp.broadcast_to(hook.inner(way, t, at), d.shape), tables, d)


def _zeros(tables):
  """Returns a zero gradient of each table of floats; None for the others."""
  return [
    jnp.zeros(x.shape, x.dtype) if jnp.issubdtype(x.dtype, jnp.floating) else None
    for x in tables
  ]
