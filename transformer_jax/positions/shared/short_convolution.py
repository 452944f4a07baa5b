"""Short convolutions along a text."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from transformer_jax.positions.coords import Coords


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Neighbours:
  """Places of the tokens around each place of a row, made once for a layer.

  order_BL   order of each token in its text
  before     of each n from 1, the place of the token n back, [B, L]; L: there is none
  after      of each n from 1, the place of the token n ahead, [B, L]; L: there is none

  Padding is no token: the token before a hole is the one before its first place.

  >>> from transformer_jax.positions import coords
  >>> near = neighbours(coords.padded(jnp.array([[True, False, True, True]])), 3)
  >>> [place_BL.tolist() for place_BL in near.before]
  [[[4, 0, 0, 2]], [[4, 4, 4, 0]]]
  """

  order_BL: jax.Array
  before: tuple[jax.Array, ...]
  after: tuple[jax.Array, ...]

  def back(self, x: jax.Array, n: int) -> jax.Array:
    """Returns x of the token n back in its text; 0 where there is none, or padding."""
    # A token of order n has just n tokens of its text before it.
    there = jnp.expand_dims(self.order_BL >= n, tuple(range(2, x.ndim)))
    if n:
      x = jnp.broadcast_to(x, (max(len(x), len(there)), *x.shape[1:]))
      x = _taken(x, self.before[n - 1], self.after[n - 1], self.order_BL)
    return jnp.where(there, x, 0)


def neighbours(at: Coords, N: int) -> Neighbours:
  """Returns the places of the tokens up to N - 1 back and ahead."""
  real_BL, L = at.real_BL, at.order_BL.shape[1]
  scan = functools.partial(jax.lax.associative_scan, axis=1)
  here_BL = jnp.broadcast_to(jnp.arange(L), real_BL.shape)
  last_BL = scan(jnp.maximum, jnp.where(real_BL, here_BL, -1))
  next_BL = scan(jnp.minimum, jnp.where(real_BL, here_BL, L), reverse=True)
  before_BL = jnp.pad(last_BL, ((0, 0), (1, 0)), constant_values=-1)[:, :-1]
  before_BL = jnp.where(before_BL < 0, L, before_BL)
  after_BL = jnp.pad(next_BL, ((0, 0), (0, 1)), constant_values=L)[:, 1:]

  def steps(place_BL):
    found = [place_BL][: N - 1]
    while len(found) < N - 1:
      found.append(_take(place_BL, found[-1], L))
    return tuple(found)

  return Neighbours(at.order_BL, steps(before_BL), steps(after_BL))


def mix(x: jax.Array, taps: jax.Array, near: Neighbours) -> jax.Array:
  """Returns weighted sums of each token and the N - 1 before it in its text.

  x      [B, L, ...]
  taps   [..., N], of each feature the weight of the token n back
  near   places of at least N - 1 tokens
  """
  mixed: Any = 0.0
  for n in range(taps.shape[-1]):
    mixed += near.back(x, n) * taps[..., n]
  return mixed


@jax.custom_vjp
def _taken(x, before_BL, after_BL, order_BL):
  """Returns x at the places of earlier tokens, n back; to be masked by their orders.

  Each token is taken by one other at most, so that the gradient takes, too: XLA's sum
  into places is a hundred times slower on CPUs.
  """
  return _take(x, before_BL, 0)


def _save(x, before_BL, after_BL, order_BL):
  return _take(x, before_BL, 0), (after_BL, order_BL)


def _gradient(saved, d):
  after_BL, order_BL = saved
  # Padding has tokens after it, too, but none of them takes it.
  real = jnp.expand_dims(order_BL >= 0, tuple(range(2, d.ndim)))
  return jnp.where(real, _take(d, after_BL, 0), 0), None, None, None


_taken.defvjp(_save, _gradient)


def _take(x: jax.Array, place_BL: jax.Array, fill: int) -> jax.Array:
  """Returns x [B, L, ...] at places along L; `fill` at the place L."""
  place = jnp.expand_dims(place_BL, tuple(range(2, x.ndim)))
  return jnp.take_along_axis(x, place, axis=1, mode="fill", fill_value=fill)
