"""Table lookups in kernels, whose compilers have no gather.

Four ways, all with exact values and gradients:

  row    the index is one row: product with a one-hot matrix
  band   the index depends on row minus column alone: each diagonal is read once, as a
         row, and spread over the tile by shifting rows against each other
  loop   any index: a loop over the entries of the table
  range  any index: a loop over the entries between the tile's least and greatest one.
         Far from the diagonal T5's buckets, or clipped distances, are a single entry
"""

import jax
import jax.numpy as jnp
from jax.experimental.pallas import tpu as pltpu

EXACT = jax.lax.Precision.HIGHEST
SUBLANES = 8  # rows of a register
PART = 1024  # entries of a table that one product reads


def lookup(way: str, table_RN: jax.Array, index_LM: jax.Array) -> jax.Array:
  """Returns entries of a table, table_RN[r, index_LM[l, m]].

  R is L if each row has a table, or 1 if all rows share one.
  """
  return READ[way](table_RN, index_LM)


def collect(way: str, shape: tuple, x_LM: jax.Array, index_LM: jax.Array) -> jax.Array:
  """Returns x_LM summed by index, in an array of shape [R, N]."""
  return ADD[way](shape, x_LM, index_LM)


# Triton does not compile custom_vjp: these two are for differentiated code only.
trained_lookup = jax.custom_vjp(lookup, nondiff_argnums=(0,))
trained_collect = jax.custom_vjp(collect, nondiff_argnums=(0, 1))
trained_lookup.defvjp(
  lambda way, table, index: (lookup(way, table, index), (table, index)),
  lambda way, kept, d: (collect(way, kept[0].shape, d, kept[1]), None),
)
trained_collect.defvjp(
  lambda way, shape, x, index: (collect(way, shape, x, index), index),
  lambda way, shape, index, d: (lookup(way, d, index), None),
)


def spread(row_RW: jax.Array, L: int, M: int) -> jax.Array:
  """Returns tile_LM[i, j] = row_RW[i or 0, (j - i) mod W]."""
  W = row_RW.shape[1]
  wide_LW = jnp.broadcast_to(row_RW, (L, W))
  return pltpu.roll(wide_LW, 0, 1, stride=1, stride_axis=0)[:, :M]


def fold(tile_LM: jax.Array, W: int, fill=0, add=jnp.add) -> jax.Array:
  """Returns the diagonals of a tile summed up, row_1W[(j - i) mod W]; L is 2^n."""
  x_LW = _widen(tile_LM, W, fill)
  while x_LW.shape[0] > 1:
    half = x_LW.shape[0] // 2
    x_LW = add(x_LW[:half], _left(x_LW[half:], half))
  return x_LW


def straighten(tile_LM: jax.Array, W: int) -> jax.Array:
  """Returns rows_LW[i, (j - i) mod W] = tile_LM[i, j], zero elsewhere.

  Rows are shifted by i mod 8, as selections, and then 8 at once by the rest.
  """
  x_LW, n = _widen(tile_LM, W, 0), 1
  L = x_LW.shape[0]
  row_LW = jax.lax.broadcasted_iota(jnp.int32, x_LW.shape, 0)
  while n < min(L, SUBLANES):
    x_LW = jnp.where((row_LW & n) > 0, _left(x_LW, n), x_LW)
    n *= 2
  rows = range(0, L, SUBLANES)
  return jnp.concatenate([_left(x_LW[i : i + SUBLANES], i) for i in rows])


def _widen(x_LM, W, fill):
  L, M = x_LM.shape
  return jnp.concatenate([x_LM, jnp.full((L, W - M), fill, x_LM.dtype)], axis=1)


def _left(x_LW, n):
  return pltpu.roll(x_LW, -n % x_LW.shape[1], 1)


def _one_hot(index_1W, start, N):
  """Returns the one-hot matrix of an index, hot_NW, for entries from `start` on."""
  entry_NW = jax.lax.broadcasted_iota(jnp.int32, (N, index_1W.shape[1]), 0) + start
  return (entry_NW == index_1W).astype(jnp.float32)


def _parts(N):
  """Returns (first, number) of the entries of a table that are read together.

  A long table's one-hot matrix would not fit fast memory.
  """
  return [(start, min(PART, N - start)) for start in range(0, N, PART)]


def _read(table_RN, index_1W):
  def part(start, size):
    entries_RN = table_RN[:, start : start + size].astype(jnp.float32)
    return jax.lax.dot(entries_RN, _one_hot(index_1W, start, size), precision=EXACT)

  return sum(part(*each) for each in _parts(table_RN.shape[1]))


def _add(x_RW, index_1W, N):
  axes = (((1,), (1,)), ((), ()))
  parts = [
    jax.lax.dot_general(x_RW, _one_hot(index_1W, *each), axes, precision=EXACT)
    for each in _parts(N)
  ]
  return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=1)


def _diagonals(index_LM):
  """Returns the index on each diagonal, index_1W, and -1 off the tile."""
  return fold(index_LM, sum(index_LM.shape), -1, jnp.maximum)


def _read_band(table_RN, index_LM):
  row_RW = _read(table_RN, _diagonals(index_LM)).astype(table_RN.dtype)
  return spread(row_RW, *index_LM.shape)


def _add_band(shape, x_LM, index_LM):
  W = sum(x_LM.shape)
  x_RW = fold(x_LM, W) if shape[0] == 1 else straighten(x_LM, W)
  return _add(x_RW, _diagonals(index_LM), shape[1])


def _read_loop(table_RN, index_LM):
  return _read_between(0, table_RN.shape[1], table_RN, index_LM)


def _read_range(table_RN, index_LM):
  first, end = _bounds(index_LM)
  return _read_between(first, end, table_RN, index_LM)


def _bounds(index_LM):
  """Returns the least entry of an index, and that after the greatest."""
  return jnp.min(index_LM), jnp.max(index_LM) + 1


def _read_between(first, end, table_RN, index_LM):
  entry_RN = jax.lax.broadcasted_iota(jnp.int32, table_RN.shape, 1)
  zero = jnp.zeros((), table_RN.dtype)

  def one(n, out_LM):
    picked_RN = jnp.where(entry_RN == n, table_RN, zero)
    return jnp.where(index_LM == n, jnp.sum(picked_RN, 1, keepdims=True), out_LM)

  start_LM = jnp.zeros(index_LM.shape, table_RN.dtype)
  return jax.lax.fori_loop(first, end, one, start_LM)


def _add_loop(shape, x_LM, index_LM):
  return _add_between(0, shape[1], shape, x_LM, index_LM)


def _add_range(shape, x_LM, index_LM):
  first, end = _bounds(index_LM)
  return _add_between(first, end, shape, x_LM, index_LM)


def _add_between(first, end, shape, x_LM, index_LM):
  """Returns x_LM summed by index, which is from `first` on and before `end`.

  first, end   numbers of entries
  shape        of the result
  """
  entry_RN = jax.lax.broadcasted_iota(jnp.int32, shape, 1)

  def one(n, out_RN):
    sum_L1 = jnp.sum(jnp.where(index_LM == n, x_LM, 0.0), 1, keepdims=True)
    sum_R1 = jnp.sum(sum_L1, 0, keepdims=True) if shape[0] == 1 else sum_L1
    return jnp.where(entry_RN == n, sum_R1, out_RN)

  return jax.lax.fori_loop(first, end, one, jnp.zeros(shape, x_LM.dtype))


READ = {
  "row": lambda table, index: _read(table, index).astype(table.dtype),
  "band": _read_band,
  "loop": _read_loop,
  "range": _read_range,
}
ADD = {
  "row": lambda shape, x, index: _add(x, index, shape[1]),
  "band": _add_band,
  "loop": _add_loop,
  "range": _add_range,
}
