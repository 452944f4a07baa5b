"""Short convolutions along a text."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from transformer_jax.positions.coords import Coords


def mix(x: jax.Array, taps: jax.Array, at: Coords) -> jax.Array:
  """Returns weighted sums of each token and the N - 1 before it in its text.

  x      [B, L, ...]
  taps   [..., N], of each feature the weight of the token n back
  at     coordinates of the tokens
  """
  L, features = x.shape[1], tuple(range(2, x.ndim))
  back_BL, before_BL = jnp.broadcast_to(jnp.arange(L), at.order_BL.shape), previous(at)
  take = functools.partial(jnp.take_along_axis, axis=1, mode="fill")
  mixed: Any = 0.0
  for n in range(taps.shape[-1]):
    before = take(x, jnp.expand_dims(back_BL, features), fill_value=0)
    # A token of order n has just n tokens of its text before it.
    before = jnp.where(jnp.expand_dims(at.order_BL >= n, features), before, 0)
    mixed += before * taps[..., n]
    back_BL = take(before_BL, back_BL, fill_value=L)
  return mixed


def previous(at: Coords) -> jax.Array:
  """Returns the place of the token before each place, or L: padding is no token."""
  L = at.order_BL.shape[1]
  last_BL = jax.lax.cummax(jnp.where(at.real_BL, jnp.arange(L), -1), axis=1)
  last_BL = jnp.pad(last_BL, ((0, 0), (1, 0)), constant_values=-1)[:, :-1]
  return jnp.where(last_BL < 0, L, last_BL)
