"""Score and output terms of one tile, with their gradients.

Each term computes its value and pulls gradients back, in up to two ways: "band" if, for
all unmasked pairs, the distance of positions is the distance of indices in the text;
"loop" for any positions.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl

from transformer_jax.attention.cores.pallas.gather import fold, spread
from transformer_jax.attention.cores.pallas.lowering import Hook, Way, trace
from transformer_jax.axes import axes_of
from transformer_jax.positions.base import Tile

STRIP = 8  # rows at once where an encoding makes arrays of [L, M, W]
EASY = {
  *("abs", "add", "and", "broadcast_in_dim", "convert_element_type", "div", "eq", "ge"),
  *("gt", "le", "lt", "max", "min", "mul", "ne", "neg", "not", "or", "select_n"),
  *("sign", "sub"),
}
shape = jax.ShapeDtypeStruct


@dataclasses.dataclass(frozen=True, eq=False)
class Sizes:
  """Sizes of a tile: queries, keys, and widths of keys and values.

  L, M   queries and keys in a tile
  K      width of queries and keys
  E      width of values
  room   whether the kernel has scratch memory and can shift rows of a tile
  """

  L: int
  M: int
  K: int
  E: int
  room: bool = True


@dataclasses.dataclass(frozen=True, eq=False)
class Given:
  """Inputs of a term in a tile.

  q_LK, k_MK     queries and keys, float32
  pos_L, pos_M   their positions
  base           distance of the first query from the first key, in tokens
  mask_LM        True where the query attends to the key
  q_data, k_data token data of the head
  strip          function from the index of a strip to the positions of its queries
  room_LM        reference to memory of a tile, for terms that go by strips
  pre_LM         input that the term changes: scaled scores, or weights
  """

  q_LK: jax.Array
  k_MK: jax.Array
  pos_L: jax.Array
  pos_M: jax.Array
  base: jax.Array
  mask_LM: jax.Array
  q_data: dict[str, jax.Array]
  k_data: dict[str, jax.Array]
  strip: Any = None
  room_LM: Any = None
  pre_LM: Any = None


class BiasTerm:
  """Bias of positions alone, b_LM.

  encoding     positional encoding
  own          shapes of the parameters of a head
  sizes        sizes of a tile
  q_at, k_at   types of positions
  ints         whether positions are int32
  """

  def __init__(self, encoding, own, sizes: Sizes, q_at, k_at, ints: bool):
    bias = lambda own, at: encoding.bias(own["position"], *at)
    rows = lambda n, dtype: shape((n,), dtype)
    whole = tuple(rows(n, d) for n, d in ((sizes.L, q_at), (sizes.M, k_at)))
    self.tile = trace(bias, own, whole)
    self.strips = self.tile.depth > 2 and sizes.room
    if self.strips:
      self.tile = trace(bias, own, (rows(min(STRIP, sizes.L), q_at), whole[1]))
    self.W = sizes.L + sizes.M
    self.band: Hook | None = None  # by distances, where the tile is a band
    bands = ints and sizes.room and encoding.relative
    if bands and not self.tile.ops <= EASY:
      self.band = trace(bias, own, (rows(1, jnp.int32), rows(self.W, jnp.int32)))
    self.hooks = [self.tile] + ([self.band] if self.band else [])
    self.ways = ("band", "loop") if self.band else ("loop",)
    self.room = self.strips

  def value(self, way, tables, given):
    L, M = given.pre_LM.shape
    if self.band is not None and way == "band":
      row_1W = self.band.inner(Way("row", False), tables[1], self._distances(given))
      return given.pre_LM + spread(jnp.broadcast_to(row_1W, (1, self.W)), L, M)
    if not self.strips:
      return given.pre_LM + self.tile.inner(
        Way(way, False), tables[0], (given.pos_L, given.pos_M)
      )
    self._each_strip(L, lambda n, at, _: self._write(n, at, tables[0], given), 0)
    return given.pre_LM + given.room_LM[...]

  def pull(self, way, tables, given, d_LM):
    """Returns gradients of the tables, and the gradient of `pre_LM`, unchanged."""
    if self.band is not None and way == "band":
      at, d_1W = self._distances(given), fold(d_LM, self.W)
      inner = self.band.inner
      band = lambda t: jnp.broadcast_to(inner(Way("row"), t, at), d_1W.shape)
      return [_zeros(tables[0]), pull(band, tables[1], d_1W)], {"pre_LM": d_LM}
    rest = [_zeros(t) for t in tables[1:]]
    if not self.strips:
      at = given.pos_L, given.pos_M
      tile = lambda t: jnp.broadcast_to(self.tile.inner(Way(way), t, at), d_LM.shape)
      return [pull(tile, tables[0], d_LM), *rest], {"pre_LM": d_LM}
    given.room_LM[...] = d_LM

    def add(n, rows, sums):
      at = given.strip(rows), given.pos_M
      strip = lambda t: self.tile.inner(Way(way), t, at)
      return _add(sums, pull(strip, tables[0], given.room_LM[rows]))

    sums = self._each_strip(d_LM.shape[0], add, _zeros(tables[0]))
    return [sums, *rest], {"pre_LM": d_LM}

  def _write(self, n, rows, tables, given):
    at = given.strip(rows), given.pos_M
    given.room_LM[rows] = self.tile.inner(Way("loop", False), tables, at)
    return 0

  def _each_strip(self, L, step, start):
    size = min(STRIP, L)
    rows = lambda n: pl.ds(n * size, size)
    return jax.lax.fori_loop(0, L // size, lambda n, x: step(n, rows(n), x), start)

  def _distances(self, given):
    """Returns positions of one query and W keys that have the distances of the band."""
    n_1W = jax.lax.broadcasted_iota(jnp.int32, (1, self.W), 1)
    ahead_1W = jnp.where(n_1W < given.pre_LM.shape[1], n_1W, n_1W - self.W)
    return jnp.zeros((1,), jnp.int32), (ahead_1W - given.base)[0]


class ScoreTerm:
  """Change of scores that reads queries, keys or token data.

  q_data, k_data   shapes of token data of a head

  Other arguments as in `BiasTerm`.
  """

  room = False

  def __init__(self, encoding, own, sizes: Sizes, q_at, k_at, ints, q_data, k_data):
    L, M, K = sizes.L, sizes.M, sizes.K
    tile = {
      "pre_LM": shape((L, M), jnp.float32),
      "q_LK": shape((L, K), jnp.float32),
      "k_MK": shape((M, K), jnp.float32),
      "pos_L": shape((L,), q_at),
      "pos_M": shape((M,), k_at),
      "mask_LM": shape((L, M), jnp.bool_),
      "q_data": q_data,
      "k_data": k_data,
    }

    def score(own, tile):
      tile = dict(tile)
      s_LM = tile.pop("pre_LM")
      return encoding.score(own["position"], s_LM, Tile(**tile, scale=own["scale"]))

    self.hook = trace(score, own, tile)
    self.hooks = [self.hook]
    both = self.hook.reads and ints and sizes.room and encoding.relative
    self.ways = ("band", "loop") if both else ("loop",)

  def value(self, way, tables, given):
    return self.hook.inner(Way(way, False), tables[0], _tile(way, given))

  def pull(self, way, tables, given, d_LM):
    tile = _tile(way, given)
    run = lambda args: self.hook.inner(Way(way), args[0], args[1])
    d_tables, d_tile = pull(run, (tables[0], tile), d_LM)
    return [d_tables], {n: d for n, d in d_tile.items() if n in GRADS}


def _tile(way, given):
  """Returns the arrays of a `Tile`; in a band, positions start at the tile's corner."""
  names = ("pre_LM", "q_LK", "k_MK", "pos_L", "pos_M", "mask_LM", "q_data", "k_data")
  tile = {name: getattr(given, name) for name in names}
  if way == "band":
    L, M = given.pre_LM.shape
    column_L1 = jax.lax.broadcasted_iota(jnp.int32, (L, 1), 0) + given.base
    row_1M = jax.lax.broadcasted_iota(jnp.int32, (1, M), 1)
    tile |= {"pos_L": column_L1[:, 0], "pos_M": row_1M[0]}
  return tile


GRADS = ("pre_LM", "q_LK", "k_MK", "q_data", "k_data")


class MaskTerm:
  """Mask of an encoding, by head; arguments as in `BiasTerm`."""

  room, ways = False, ("loop",)

  def __init__(self, encoding, own, sizes: Sizes, q_at, k_at, ints):
    tile = shape((sizes.L,), q_at), shape((sizes.M,), k_at)
    self.hook = trace(lambda own, at: encoding.mask(own["position"], *at), own, tile)
    self.hooks = [self.hook]

  def value(self, tables, given):
    at = given.pos_L, given.pos_M
    return given.mask_LM & self.hook.inner(Way("loop", False), tables[0], at)


class ValuesTerm:
  """Addition of an encoding to outputs, linear in the weights; as `BiasTerm`."""

  room = False

  def __init__(self, encoding, own, sizes: Sizes, q_at, k_at, ints):
    L, M = sizes.L, sizes.M
    tile = shape((L, M), jnp.float32), shape((L,), q_at), shape((M,), k_at)
    values = lambda own, tile: encoding.values(own["position"], *tile)
    self.hook = trace(values, own, tile)
    self.hooks = [self.hook]
    both = self.hook.reads and ints and sizes.room and encoding.relative
    self.ways = ("band", "loop") if both else ("loop",)

  def value(self, way, tables, given):
    return self.hook.inner(Way(way, False), tables[0], self._tile(way, given))

  def pull(self, way, tables, given, d_LE):
    _, *at = self._tile(way, given)
    run = lambda args: self.hook.inner(Way(way), args[0], (args[1], *at))
    d_tables, d_w_LM = pull(run, (tables[0], given.pre_LM), d_LE)
    return [d_tables], {"pre_LM": d_w_LM}

  def _tile(self, way, given):
    tile = _tile(way, given)
    return tile["pre_LM"], tile["pos_L"], tile["pos_M"]


class LogitsTerm:
  """Change of each score by a variant, after the encoding."""

  room, ways = False, ("loop",)

  def __init__(self, variant, own, sizes: Sizes):
    tile = shape((sizes.L, sizes.M), jnp.float32)
    self.hook = trace(lambda own, s_LM: variant.logits(own["variant"], s_LM), own, tile)
    self.hooks = [self.hook]

  def value(self, way, tables, given):
    return self.hook.inner(Way(way, False), tables[0], given.pre_LM)

  def pull(self, way, tables, given, d_LM):
    run = lambda args: self.hook.inner(Way(way), args[0], args[1])
    d_tables, d_pre_LM = pull(run, (tables[0], given.pre_LM), d_LM)
    return [d_tables], {"pre_LM": d_pre_LM}


def pull(function: Any, tree: Any, d: jax.Array) -> Any:
  """Returns gradients of the floats in a tree; None for other leaves."""
  leaves, treedef = jax.tree.flatten(tree)
  moves = [jnp.issubdtype(x.dtype, jnp.floating) for x in leaves]
  floats = [x for x, is_float in zip(leaves, moves, strict=True) if is_float]

  def of_floats(*floats):
    next_float = iter(floats)
    pairs = zip(leaves, moves, strict=True)
    all_leaves = [next(next_float) if is_float else x for x, is_float in pairs]
    return function(jax.tree.unflatten(treedef, all_leaves))

  if not floats:
    return jax.tree.unflatten(treedef, [None for _ in leaves])
  grads = iter(jax.vjp(of_floats, *floats)[1](d))
  return jax.tree.unflatten(treedef, [next(grads) if m else None for m in moves])


def _zeros(tables):
  floating = lambda x: jnp.issubdtype(x.dtype, jnp.floating)
  return [jnp.zeros(x.shape, x.dtype) if floating(x) else None for x in tables]


def _add(a, b):
  return jax.tree.map(jnp.add, a, b)


def head_slices(params: dict[str, jax.Array]) -> dict[str, jax.ShapeDtypeStruct]:
  """Returns the shapes of one head's slice of each parameter."""
  cut = lambda n, x: x.shape[1:] if axes_of(n).startswith("H") else x.shape
  return {n: shape(cut(n, x), x.dtype) for n, x in params.items()}
