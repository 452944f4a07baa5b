"""Caches of keys and values for decoding."""

import dataclasses
from collections.abc import Mapping
from typing import overload

import jax
import jax.numpy as jnp

from transformer_jax.attention.convolution import Recent
from transformer_jax.positions import Coords, coords


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cache:
  """Cache of one layer: arrays of past tokens, their coordinates and their number.

  Keys are stored rotated. If later tokens change the rotation, as in encodings whose
  angles depend on the length, keys are stored unrotated.

  kept     arrays [B, ..., M, K]: keys and values, or a latent from which both are
           projected. Tokens are the last axis but one, as products with queries need
  at       coordinates of the tokens
  used     number of tokens stored so far
  frozen   keys stay as first rotated, also if later tokens change the rotation
  recent   what a variant's convolutions keep of the newest tokens, or None

  >>> import jax
  >>> import numpy as np
  >>> from transformer_jax.attention.cache import empty, remember
  >>> from transformer_jax.positions import coords
  >>> key = {"key": np.ones((1, 3, 1, 2), np.float32)}
  >>> room = {"key": np.ones((1, 4, 1, 2), np.float32)}
  >>> cache = empty(room, coords.consecutive(1, 4))
  >>> kept, at, cache = jax.jit(remember)(cache, key, coords.consecutive(1, 3))
  >>> cache.used.item(), at.order_BL.tolist(), cache.kept["key"].shape
  (3, [[0, 1, 2, -1]], (1, 1, 4, 2))
  """

  kept: dict[str, jax.Array]
  at: Coords
  used: jax.Array
  frozen: bool = dataclasses.field(default=False, metadata={"static": True})
  recent: Recent | None = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CachedText:
  """Cache of a text's tokens; each new token takes a full pass over them.

  tokens   cache of the array `token`

  >>> import numpy as np
  >>> from transformer_jax.attention.cache import CachedText, empty
  >>> from transformer_jax.positions import coords
  >>> token = {"token": np.zeros((1, 4), np.int32)}
  >>> cache = CachedText(empty(token, coords.consecutive(1, 4)))
  >>> cache.tokens.used.item(), cache.tokens.at.order_BL.tolist()
  (0, [[-1, -1, -1, -1]])
  """

  tokens: Cache


Shaped = jax.Array | jax.ShapeDtypeStruct


def empty(
  kept: Mapping[str, Shaped],
  at: Coords,
  frozen: bool = False,
  recent: Recent | None = None,
) -> Cache:
  """Returns an empty cache of M tokens, for arrays or shapes [B, M, ...]."""
  zeros, at = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (kept, at))
  none = coords.absent(*at.order_BL.shape)
  at = at.replace(order_BL=none.order_BL, horizon_BL=none.horizon_BL)
  stored: dict[str, jax.Array] = jax.tree.map(_inward, zeros)
  return Cache(stored, at, jnp.zeros((), jnp.int32), frozen, recent)


@overload
def remember(
  cache: Cache, kept: dict[str, jax.Array], at: Coords
) -> tuple[dict[str, jax.Array], Coords, Cache]: ...


@overload
def remember(
  cache: None, kept: dict[str, jax.Array], at: Coords
) -> tuple[dict[str, jax.Array], Coords, None]: ...


def remember(
  cache: Cache | None, kept: dict[str, jax.Array], at: Coords
) -> tuple[dict[str, jax.Array], Coords, Cache | None]:
  """Returns the arrays and coordinates of all tokens, and the cache with the new ones.

  Without a cache, these are the new tokens alone. Tokens past the end of a full cache
  are NaN, and so are queries that attend to them. Raises ValueError if the new tokens
  are more than the whole cache holds.

  cache   the cache, or None
  kept    arrays [B, L, ...] of the new tokens
  at      their coordinates
  """
  if cache is None:
    return kept, at, None
  L, M = at.order_BL.shape[1], cache.at.order_BL.shape[1]
  if L > M:
    raise ValueError(f"{L} tokens do not fit a cache of {M}; make it larger")
  # A slice that is written past an end would be moved back over older tokens.
  fits = cache.used + L <= M
  kept = jax.tree.map(lambda x: fitting(x, fits), kept)

  def put(old, new, axis):
    new = jnp.broadcast_to(new, (old.shape[0], *new.shape[1:])).astype(old.dtype)
    return jax.lax.dynamic_update_slice_in_dim(old, new, cache.used, axis=axis)

  at = jax.tree.map(lambda old, new: put(old, new, 1), cache.at, at)
  kept = jax.tree.map(lambda old, new: put(old, _inward(new), -2), cache.kept, kept)
  after = dataclasses.replace(cache, kept=kept, at=at, used=cache.used + L)
  return jax.tree.map(_outward, kept), at, after


def fitting(x: jax.Array, fits: jax.Array) -> jax.Array:
  """Returns x, or NaN if it does not fit; integers, which have no NaN, unchanged."""
  if not jnp.issubdtype(x.dtype, jnp.floating):
    return x
  return jnp.where(fits, x, jnp.asarray(jnp.nan, x.dtype))


def _inward(x: jax.Array) -> jax.Array:
  """Moves tokens from the second axis to the last but one."""
  return jnp.moveaxis(x, 1, -2)


def _outward(x: jax.Array) -> jax.Array:
  """Moves tokens back to the second axis."""
  return jnp.moveaxis(x, -2, 1)


def newest(k_at: Coords, cache: Cache | None, L: int) -> Coords:
  """Returns the coordinates of the last L tokens: the queries."""
  if cache is None:
    return k_at

  def cut(x):
    return jax.lax.dynamic_slice_in_dim(x, cache.used - L, L, axis=1)

  return jax.tree.map(cut, k_at)
