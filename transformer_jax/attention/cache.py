"""Everything a query may look at: the new tokens, or a cache with them added."""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.positions import Coords


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cache:
  """What one layer kept of past tokens, their coordinates, and how many there are.

  Keys are kept as projected and turned on reading: encodings whose angles depend on the
  length then need no second path.

  kept   arrays [B, M, ...]: keys and values, or what they can be made of
  """

  kept: dict[str, jax.Array]
  at: Coords
  used: jax.Array


def remember(
  cache: Cache | None, kept: dict[str, jax.Array], at: Coords
) -> tuple[dict[str, jax.Array], Coords, Cache | None]:
  """Adds new tokens to the cache and returns what it keeps, with the coordinates.

  Without a cache the new tokens are all there is.
  """
  if cache is None:
    return kept, at, None

  def put(old, new):
    new = jnp.broadcast_to(new, (old.shape[0], *new.shape[1:])).astype(old.dtype)
    return jax.lax.dynamic_update_slice_in_dim(old, new, cache.used, axis=1)

  L = at.order_BL.shape[1]
  kept, at = jax.tree.map(put, (cache.kept, cache.at), (kept, at))
  return kept, at, Cache(kept, at, cache.used + L)


def newest(k_at: Coords, cache: Cache | None, L: int) -> Coords:
  """Returns the coordinates of the last L tokens added: those of the queries."""
  if cache is None:
    return k_at
  cut = lambda x: jax.lax.dynamic_slice_in_dim(x, cache.used - L, L, axis=1)
  return jax.tree.map(cut, k_at)
