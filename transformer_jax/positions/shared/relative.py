"""Vectors of the distance, matched with queries or keys.

Positions are data, so in general the vector of each pair is looked up, entry by entry;
the gradient of that is a scatter, one entry after the other. Where the positions of
both sides of a tile count on one by one, each diagonal has one distance: the vectors of
all diagonals are taken in order, one matrix product matches them with every query, and
its rows are shifted against each other into the tile, as in Music Transformer (Huang et
al., 2019, https://arxiv.org/abs/1809.04281). The gradient is shifted back, and all that
remains are matrix products and one sum for each vector.

Tables of a few rows, as Shaw et al.'s 33, are looked up all the same: the product with
all rows is small, and neither this nor sums without a scatter were faster.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

Row = Callable[[jax.Array], jax.Array]
READY = {"ready": 0.0}  # a mark of `prepare`: it was called, so hooks may branch


def matcher(params) -> Callable[..., jax.Array]:
  """Returns `match`, or `lookup` where hooks may not branch, as in kernels."""
  return match if "ready" in params else lookup


def lookup(row: Row, vectors_NK, x_LK, pos_L, pos_M) -> jax.Array:
  """Returns found_LM[i, j] = x_i . vectors[row(pos_i - pos_j)], for any positions.

  row   from distances, int32, to rows of the table
  """
  row_LM = row((pos_L[:, None] - pos_M[None, :]).astype(jnp.int32))
  return jnp.take_along_axis(x_LK @ vectors_NK.T, row_LM, axis=1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def match(row: Row, vectors_NK, x_LK, pos_L, pos_M) -> jax.Array:
  """Returns what `lookup` does, by a skewed product wherever that is possible."""
  args = vectors_NK, x_LK, pos_L, pos_M
  ways = functools.partial(skewed, row), functools.partial(lookup, row)
  return jax.lax.cond(runs_on(pos_L, pos_M), *ways, *args)


def _save(row, *args):
  return match(row, *args), args


def _pull(row, args, d_LM):
  vectors_NK, x_LK, pos_L, pos_M = args

  def by_skew(d_LM):
    d_LN, row_N = unshear(d_LM), row(distances(pos_L, pos_M))
    d_row_NK = (d_LN.T @ x_LK).astype(vectors_NK.dtype)
    return jnp.zeros_like(vectors_NK).at[row_N].add(d_row_NK), d_LN @ vectors_NK[row_N]

  def by_lookup(d_LM):
    both = lambda vectors_NK, x_LK: lookup(row, vectors_NK, x_LK, pos_L, pos_M)
    return jax.vjp(both, vectors_NK, x_LK)[1](d_LM)

  pulled = jax.lax.cond(runs_on(pos_L, pos_M), by_skew, by_lookup, d_LM)
  return *pulled, None, None


match.defvjp(_save, _pull)


def skewed(row: Row, vectors_NK, x_LK, pos_L, pos_M) -> jax.Array:
  """Returns what `lookup` does where the positions of both sides count on."""
  return shear(x_LK @ vectors_NK[row(distances(pos_L, pos_M))].T)


def near(vectors_NK, last, x_LK, pos_L, pos_M, otherwise) -> jax.Array:
  """Returns x_i . vectors[last - (pos_i - pos_j)] where that is a skewed product.

  otherwise   () -> found_LM, for other positions and distances beyond the table
  """
  width, N = len(pos_L) + len(pos_M) - 1, len(vectors_NK)
  start = last.astype(jnp.int32) - distances(pos_L, pos_M)[0]
  fits = runs_on(pos_L, pos_M) & everywhere((start >= 0) & (start + width <= N))

  def skewed():
    window_NK = jax.lax.dynamic_slice_in_dim(vectors_NK, start, width)
    return shear(x_LK @ window_NK.T)

  return jax.lax.cond(fits, skewed, otherwise)


def distances(pos_L: jax.Array, pos_M: jax.Array) -> jax.Array:
  """Returns the distances back_N of a tile's diagonals, from the lower left on."""
  L, M = len(pos_L), len(pos_M)
  first = (pos_L[0] - pos_M[0]).astype(jnp.int32)
  return first + (L - 1) - jnp.arange(L + M - 1, dtype=jnp.int32)


def runs_on(pos_L: jax.Array, pos_M: jax.Array) -> jax.Array:
  """Says whether positions count on one by one, in all rows of a batch alike."""
  counts = lambda pos_L: jnp.all(pos_L[1:] == pos_L[:-1] + 1)
  return everywhere(counts(pos_L) & counts(pos_M))


@jax.custom_batching.custom_vmap
def everywhere(flag: jax.Array) -> jax.Array:
  """Gives a batch one answer, or a `cond` would compute both of its ways for it."""
  return flag


everywhere.def_vmap(lambda size, batched, flag: (jnp.all(flag), False))


@jax.custom_vjp
def shear(match_LN: jax.Array) -> jax.Array:
  """Returns tile_LM[i, j] = match_LN[i, L - 1 - i + j], where N = L + M - 1."""
  L, N = match_LN.shape
  if L == 1:
    return match_LN
  flat = match_LN.reshape(-1)[L - 1 : L - 1 + L * (N - 1)]
  return flat.reshape(L, N - 1)[:, : N - L + 1]


def unshear(tile_LM: jax.Array) -> jax.Array:
  """Returns match_LN, zero beside the tile: what `shear` transposes to."""
  L, M = tile_LM.shape
  column_LN = jnp.arange(L + M - 1) - (L - 1) + jnp.arange(L)[:, None]
  inside_LN = (column_LN >= 0) & (column_LN < M)
  found_LN = jnp.take_along_axis(tile_LM, jnp.clip(column_LN, 0, M - 1), axis=1)
  return jnp.where(inside_LN, found_LN, 0.0)


shear.defvjp(lambda x: (shear(x), None), lambda _, d: (unshear(d),))
