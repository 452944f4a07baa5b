"""Score and output terms of one tile, with their gradients.

Each term computes its value and pulls gradients back, in up to two ways: "band" if, for
all unmasked pairs, the distance of positions is the distance of indices in the text;
"loop" for any positions. The term of a bias is in `bias_term.py`.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from transformer_jax.attention.cores.pallas.lowering import Hook, trace
from transformer_jax.attention.cores.pallas.primitives import TableLookup
from transformer_jax.axes import axes_of
from transformer_jax.positions.base import Tile

shape = jax.ShapeDtypeStruct


@dataclasses.dataclass(frozen=True, eq=False)
class Sizes:
  """Sizes of a tile: queries, keys, and widths of keys and values.

  L, M   queries and keys in a tile
  K      width of queries and keys
  E      width of values
  room   whether the kernel has scratch memory and can shift rows of a tile
  reach  largest distance of tokens in the call, either way
  """

  L: int
  M: int
  K: int
  E: int
  room: bool = True
  reach: int = 0

  @property
  def any_index(self) -> str:
    """Returns the way of table lookups for any index, as in `gather`."""
    return "loop" if self.room else "range"


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
  extended       references to the tables of the term's products
  sums           references to their gradients, or None in place of each
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
  extended: Sequence[Any] = ()
  sums: Sequence[Any] = ()


class ScoreTerm:
  """Change of scores that reads queries, keys or token data.

  encoding                   positional encoding
  own                        shapes of the parameters of a head
  sizes                      sizes of a tile
  q_pos_dtype, k_pos_dtype   types of positions
  ints                       whether positions are int32
  q_data, k_data             shapes of token data of a head
  """

  room = False

  def __init__(
    self, encoding, own, sizes: Sizes, q_pos_dtype, k_pos_dtype, ints, q_data, k_data
  ):
    L, M, K = sizes.L, sizes.M, sizes.K
    tile = {
      "pre_LM": shape((L, M), jnp.float32),
      "q_LK": shape((L, K), jnp.float32),
      "k_MK": shape((M, K), jnp.float32),
      "pos_L": shape((L,), q_pos_dtype),
      "pos_M": shape((M,), k_pos_dtype),
      "mask_LM": shape((L, M), jnp.bool_),
      "q_data": q_data,
      "k_data": k_data,
    }

    def score(own, tile):
      tile = dict(tile)
      s_LM = tile.pop("pre_LM")
      return encoding.score(own["position"], s_LM, Tile(**tile, scale=own["scale"]))

    bands = ints and sizes.room and encoding.relative
    reach = sizes.reach if bands else 0
    self.hook = trace(score, own, tile, reach if sizes.room else None)
    self.hooks = [self.hook]
    both = self.hook.reads and bands
    self.ways = ("band", "loop") if both else (sizes.any_index,)

  def value(self, way, tables, given):
    read = _Read(self.hook, TableLookup(way, False), tables[0], _tile(way, given))
    return read.value(given)

  def pull(self, way, tables, given, d_LM):
    read = _Read(self.hook, TableLookup(way), tables[0], _tile(way, given))
    d_tables, d_tile = read.pull(given, d_LM)
    return [d_tables], {n: d for n, d in d_tile.items() if n in GRADS}


@dataclasses.dataclass(frozen=True, eq=False)
class _Read:
  """Hook of scores in one tile, with its products of tables.

  hook     the traced hook
  lookup   table lookup of the kernel
  tables   tables that it gets
  tile     its tile
  """

  hook: Hook
  lookup: TableLookup
  tables: Any
  tile: Any

  def value(self, given) -> jax.Array:
    found = self._products(given, self._operands(given))
    return self.hook.inner(self.lookup, self.tables, self.tile, found)

  def pull(self, given, d_LM):
    """Returns gradients of tables and tile; those of products go to `given.sums`."""
    args, hook, way = (self.tables, self.tile), self.hook, self.lookup.way
    operands = self._operands(given)
    found = self._products(given, operands)
    *d_args, d_found = pull(
      lambda args: hook.inner(self.lookup, *args), (*args, found), d_LM
    )
    if not hook.products:
      return d_args
    d_x = [
      product.pull(way, table, sums, x, index, given.base, d_AB)
      for (product, x, index, table), sums, d_AB in zip(
        operands, given.sums, d_found, strict=True
      )
    ]
    more = pull(lambda args: hook.vectors(self.lookup, *args), args, d_x)
    return jax.tree.map(jnp.add, tuple(d_args), more)

  def _products(self, given, operands):
    return [
      product.value(self.lookup.way, table, x, index, given.base)
      for product, x, index, table in operands
    ]

  def _operands(self, given):
    """Returns (product, vectors, index, table) of each product."""
    args, products = (self.lookup, self.tables, self.tile), self.hook.products
    bands = self.lookup.way == "band" and all(product.by for product in products)
    none = [None] * len(products)  # a band needs no index
    indices = none if bands else self.hook.indices(*args)
    return [
      *zip(products, self.hook.vectors(*args), indices, given.extended, strict=True)
    ]


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
  """Mask of an encoding, by head; arguments as in `ScoreTerm`."""

  room = False

  def __init__(self, encoding, own, sizes: Sizes, q_pos_dtype, k_pos_dtype, ints):
    self.ways = (sizes.any_index,)
    tile = shape((sizes.L,), q_pos_dtype), shape((sizes.M,), k_pos_dtype)

    def mask(own, at):
      pos_L, pos_M = at
      return encoding.mask(own["position"], pos_L, pos_M)

    self.hook = trace(mask, own, tile)
    self.hooks = [self.hook]

  def value(self, tables, given):
    at = given.pos_L, given.pos_M
    way = TableLookup(self.ways[0], False)
    return given.mask_LM & self.hook.inner(way, tables[0], at)


class ValuesTerm:
  """Addition of an encoding to outputs, linear in the weights; as `ScoreTerm`."""

  room = False

  def __init__(self, encoding, own, sizes: Sizes, q_pos_dtype, k_pos_dtype, ints):
    L, M = sizes.L, sizes.M
    tile = (
      shape((L, M), jnp.float32),
      shape((L,), q_pos_dtype),
      shape((M,), k_pos_dtype),
    )

    def values(own, tile):
      w_LM, pos_L, pos_M = tile
      return encoding.values(own["position"], w_LM, pos_L, pos_M)

    self.hook = trace(values, own, tile)
    self.hooks = [self.hook]
    both = self.hook.reads and ints and sizes.room and encoding.relative
    self.ways = ("band", "loop") if both else (sizes.any_index,)

  def value(self, way, tables, given):
    return self.hook.inner(TableLookup(way, False), tables[0], self._tile(way, given))

  def pull(self, way, tables, given, d_LE):
    _, pos_L, pos_M = self._tile(way, given)

    def run(args):
      tables, w_LM = args
      return self.hook.inner(TableLookup(way), tables, (w_LM, pos_L, pos_M))

    d_tables, d_w_LM = pull(run, (tables[0], given.pre_LM), d_LE)
    return [d_tables], {"pre_LM": d_w_LM}

  def _tile(self, way, given):
    tile = _tile(way, given)
    return tile["pre_LM"], tile["pos_L"], tile["pos_M"]


class LogitsTerm:
  """Change of each score by a variant, after the encoding."""

  room = False

  def __init__(self, variant, own, sizes: Sizes):
    self.ways = (sizes.any_index,)
    tile = shape((sizes.L, sizes.M), jnp.float32)
    self.hook = trace(lambda own, s_LM: variant.logits(own["variant"], s_LM), own, tile)
    self.hooks = [self.hook]

  def value(self, way, tables, given):
    return self.hook.inner(TableLookup(way, False), tables[0], given.pre_LM)

  def pull(self, way, tables, given, d_LM):
    d_tables, d_pre_LM = _pull_hook(self.hook, way, tables[0], given.pre_LM, d_LM)
    return [d_tables], {"pre_LM": d_pre_LM}


def _pull_hook(hook, way, tables, tile, d):
  """Returns gradients of the tables of a hook, and of its tile.

  hook     the traced hook
  way      table lookup of the kernel
  tables   tables that it reads
  tile     its tile
  d        gradient of its result
  """
  return pull(
    lambda args: hook.inner(TableLookup(way), args[0], args[1]), (tables, tile), d
  )


def pull(function: Any, tree: Any, d: Any) -> Any:
  """Returns gradients of the floats in a tree; None for other leaves.

  d   gradient of the function's result, as a tree like it
  """
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


def head_slices(params: dict[str, jax.Array]) -> dict[str, jax.ShapeDtypeStruct]:
  """Returns the shapes of one head's slice of each parameter."""
  return {
    n: shape(x.shape[1:] if axes_of(n).startswith("H") else x.shape, x.dtype)
    for n, x in params.items()
  }
