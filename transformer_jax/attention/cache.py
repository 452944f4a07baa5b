"""Everything a query may look at: the new tokens, or a cache with them added."""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.positions import Coords


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cache:
  """Keys, values and coordinates of past tokens of one layer, and how many there are.

  Keys are kept as projected and turned on reading: encodings whose angles depend on the
  length then need no second path.
  """

  k_BMHK: jax.Array
  v_BMHK: jax.Array
  at: Coords
  used: jax.Array


def remember(
  cache: Cache | None, k_BLHK: jax.Array, v_BLHK: jax.Array, at: Coords
) -> tuple[jax.Array, jax.Array, Coords, Cache | None]:
  """Adds new tokens to the cache and returns all keys, values and their coordinates.

  Without a cache the new tokens are all there is.
  """
  if cache is None:
    return k_BLHK, v_BLHK, at, None

  def put(old, new):
    new = jnp.broadcast_to(new, (old.shape[0], *new.shape[1:])).astype(old.dtype)
    return jax.lax.dynamic_update_slice_in_dim(old, new, cache.used, axis=1)

  old = cache.k_BMHK, cache.v_BMHK, cache.at
  k_BMHK, v_BMHK, k_at = jax.tree.map(put, old, (k_BLHK, v_BLHK, at))
  used = cache.used + k_BLHK.shape[1]
  return k_BMHK, v_BMHK, k_at, Cache(k_BMHK, v_BMHK, k_at, used)


def newest(k_at: Coords, cache: Cache | None, L: int) -> Coords:
  """Returns the coordinates of the last L tokens added: those of the queries."""
  if cache is None:
    return k_at
  cut = lambda x: jax.lax.dynamic_slice_in_dim(x, cache.used - L, L, axis=1)
  return jax.tree.map(cut, k_at)
