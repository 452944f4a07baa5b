"""Products of queries or keys with vectors of the distance.

Positions are data, so in general the vector of each pair is looked up, entry by entry.
The gradient of that is a slow scatter. Where the positions of both sides of a tile are
consecutive, each diagonal has one distance. One matrix product of all queries with the
vectors of all diagonals then suffices; its rows are shifted into the tile, as in Music
Transformer (Huang et al., 2019, https://arxiv.org/abs/1809.04281). The gradient is
shifted back: matrix products, and one sum for each vector.

Small tables, as Shaw et al.'s 33 rows, always use the lookup: the product with all rows
is small, and neither the skewed product nor sums without a scatter were faster.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

RowIndex = Callable[[jax.Array], jax.Array]
READY = {"ready": 0.0}  # added by `prepare`: hooks may branch on positions


def matcher(params) -> Callable[..., jax.Array]:
  """Returns `match`, or `lookup` where hooks may not branch, as in kernels.

  params: those of the encoding, with `READY` after `prepare`
  """
  return match if "ready" in params else lookup


def lookup(row: RowIndex, vectors_NK, x_LK, pos_L, pos_M) -> jax.Array:
  """Returns found_LM[i, j] = x_i . vectors[row(pos_i - pos_j)], for any positions.

  row            from distances, int32, to rows of the table
  vectors_NK     the table
  x_LK           queries
  pos_L, pos_M   positions of queries and keys
  """
  row_LM = row((pos_L[:, None] - pos_M[None, :]).astype(jnp.int32))
  return jnp.take_along_axis(x_LK @ vectors_NK.T, row_LM, axis=1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def match(row: RowIndex, vectors_NK, x_LK, pos_L, pos_M) -> jax.Array:
  """Returns the result of `lookup`, by a skewed product wherever possible.

  row            from distances, int32, to rows of the table
  vectors_NK     the table
  x_LK           queries
  pos_L, pos_M   positions of queries and keys
  """
  return jax.lax.cond(
    runs_on(pos_L, pos_M),
    functools.partial(skewed, row),
    functools.partial(lookup, row),
    vectors_NK,
    x_LK,
    pos_L,
    pos_M,
  )


def _save(row, *args):
  return match(row, *args), args


def _pull(row, args, d_LM):
  vectors_NK, x_LK, pos_L, pos_M = args

  def by_skew(d_LM):
    d_LN, row_N = unshear(d_LM), row(distances(pos_L, pos_M))
    d_row_NK = (d_LN.T @ x_LK).astype(vectors_NK.dtype)
    return jnp.zeros_like(vectors_NK).at[row_N].add(d_row_NK), d_LN @ vectors_NK[row_N]

  def found(vectors_NK, x_LK):
    return lookup(row, vectors_NK, x_LK, pos_L, pos_M)

  def by_lookup(d_LM):
    return jax.vjp(found, vectors_NK, x_LK)[1](d_LM)

  pulled = jax.lax.cond(runs_on(pos_L, pos_M), by_skew, by_lookup, d_LM)
  return *pulled, None, None


match.defvjp(_save, _pull)


def skewed(row: RowIndex, vectors_NK, x_LK, pos_L, pos_M) -> jax.Array:
  """Returns the result of `lookup` for consecutive positions on both sides.

  row            from distances, int32, to rows of the table
  vectors_NK     the table
  x_LK           queries
  pos_L, pos_M   positions of queries and keys, one apart
  """
  return shear(x_LK @ vectors_NK[row(distances(pos_L, pos_M))].T)


def near(vectors_NK, last, x_LK, pos_L, pos_M, otherwise) -> jax.Array:
  """Returns x_i . vectors[last - (pos_i - pos_j)], by a skewed product if possible.

  vectors_NK     the table
  last           row of distance 0
  x_LK           queries
  pos_L, pos_M   positions of queries and keys
  otherwise      () -> found_LM, for other positions and distances beyond the table
  """
  width, N = len(pos_L) + len(pos_M) - 1, len(vectors_NK)
  start = last.astype(jnp.int32) - distances(pos_L, pos_M)[0]
  fits = runs_on(pos_L, pos_M) & everywhere((start >= 0) & (start + width <= N))

  def skewed():
    window_NK = jax.lax.dynamic_slice_in_dim(vectors_NK, start, width)
    return shear(x_LK @ window_NK.T)

  return jax.lax.cond(fits, skewed, otherwise)


def distances(pos_L: jax.Array, pos_M: jax.Array) -> jax.Array:
  """Returns the distances back_N of a tile's diagonals, from the lower left one on."""
  L, M = len(pos_L), len(pos_M)
  first = (pos_L[0] - pos_M[0]).astype(jnp.int32)
  return first + (L - 1) - jnp.arange(L + M - 1, dtype=jnp.int32)


def runs_on(pos_L: jax.Array, pos_M: jax.Array) -> jax.Array:
  """Returns whether positions are consecutive, in all rows of a batch."""
  return everywhere(_counts(pos_L) & _counts(pos_M))


def _counts(pos_L):
  """Returns whether each position is one more than the one before it."""
  return jnp.all(pos_L[1:] == pos_L[:-1] + 1)


@jax.custom_batching.custom_vmap
def everywhere(flag: jax.Array) -> jax.Array:
  """Returns one flag for the whole batch; else a `cond` would compute both branches."""
  return flag


# A batch of batches is one, too.
everywhere.def_vmap(lambda size, batched, flag: (everywhere(jnp.all(flag)), False))


@jax.custom_vjp
def shear(match_LN: jax.Array) -> jax.Array:
  """Returns tile_LM[i, j] = match_LN[i, L - 1 - i + j], where N = L + M - 1."""
  L, N = match_LN.shape
  if L == 1:
    return match_LN
  flat = match_LN.reshape(-1)[L - 1 : L - 1 + L * (N - 1)]
  return flat.reshape(L, N - 1)[:, : N - L + 1]


def unshear(tile_LM: jax.Array) -> jax.Array:
  """Returns match_LN, zero outside of the tile: the transpose of `shear`."""
  L, M = tile_LM.shape
  column_LN = jnp.arange(L + M - 1) - (L - 1) + jnp.arange(L)[:, None]
  inside_LN = (column_LN >= 0) & (column_LN < M)
  found_LN = jnp.take_along_axis(tile_LM, jnp.clip(column_LN, 0, M - 1), axis=1)
  return jnp.where(inside_LN, found_LN, 0.0)


shear.defvjp(lambda x: (shear(x), None), lambda _, d: (unshear(d),))
