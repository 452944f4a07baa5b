"""Short convolutions along a text."""

import dataclasses
import functools
import math
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
  holes      whether padding stands between tokens of a text

  Padding is no token: the token before a hole is the one before its first place.

  >>> from transformer_jax.positions import coords
  >>> near = neighbours(coords.padded(jnp.array([[True, False, True, True]])), 3)
  >>> [place_BL.tolist() for place_BL in near.before]
  [[[4, 0, 0, 2]], [[4, 4, 4, 0]]]
  """

  order_BL: jax.Array
  before: tuple[jax.Array, ...]
  after: tuple[jax.Array, ...]
  holes: jax.Array

  def back(self, x: jax.Array, n: int) -> jax.Array:
    """Returns x of the token n back in its text; 0 where there is none, or padding."""
    if n:
      x = jnp.broadcast_to(x, (max(len(x), len(self.order_BL)), *x.shape[1:]))
      x = _taken(x, self.before[n - 1], self.after[n - 1], self.order_BL)
    return self._there(x, n)

  def back_without_holes(self, x: jax.Array, n: int) -> jax.Array:
    """Returns `back` where there are no holes: x of the place n back."""
    widths = [(0, 0), (n, 0)] + [(0, 0)] * (x.ndim - 2)
    return self._there(jnp.pad(x, widths)[:, : x.shape[1]], n)

  def _there(self, x: jax.Array, n: int) -> jax.Array:
    """Returns x where a token has n tokens of its text before it, else 0."""
    # A token of order n has just n.
    there = jnp.expand_dims(self.order_BL >= n, tuple(range(2, x.ndim)))
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

  apart_BL = (at.order_BL > 0) & (before_BL != here_BL - 1)
  return Neighbours(at.order_BL, steps(before_BL), steps(after_BL), jnp.any(apart_BL))


def mix(x: jax.Array, taps: jax.Array, near: Neighbours) -> jax.Array:
  """Returns weighted sums of each token and the N - 1 before it in its text.

  x      [B, L, ...]
  taps   [..., N], of each feature the weight of the token n back
  near   places of at least N - 1 tokens
  """

  def summed(back, x, taps):
    mixed: Any = 0.0
    for n in range(taps.shape[-1]):
      x_n = back(x, n)
      mixed += x_n * _for_each_token(taps[..., n], x_n.shape)
    return mixed

  # Taking rows of places is twenty times slower on a CPU than a shift of all places.
  return jax.lax.cond(
    near.holes,
    functools.partial(summed, near.back),
    functools.partial(summed, near.back_without_holes),
    x,
    taps,
  )


def _for_each_token(tap: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """Returns a tap broadcast to tokens, whose gradient is summed by a product.

  XLA's own sum over the tokens takes as long on a CPU as a product with weights.
  """
  tokens = math.prod(shape[:2])
  tap = jnp.broadcast_to(tap, shape[2:])  # one number may be that of all features
  ones, exact = jnp.ones((tokens, 1), tap.dtype), jax.lax.Precision.HIGHEST
  return jnp.matmul(ones, tap.reshape(1, -1), precision=exact).reshape(shape)


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
