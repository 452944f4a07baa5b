"""Compensated running sums, whose differences stay exact in long texts.

At 131 072 tokens a sum may be near 100 000, where float32 has steps of 1/128, and a
difference of two such sums has an error of that size. Here every sum comes with its
rounding error: the sum is the two numbers added up.
"""

import jax
import jax.numpy as jnp

from transformer_jax.positions.coords import Coords

BLOCK = 128  # tokens that are summed in plain float32, whose error is small enough


@jax.custom_vjp
def running(x_BL: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns the running sums along the second axis, and their rounding errors.

  Both are float32 arrays of the shape of x, [B, L, ...]. Up to 128 places the first is
  `jnp.cumsum` and the second zero. Gradients flow through the first alone and are
  compensated as well.
  """
  B, L, *rest = x_BL.shape
  if L <= BLOCK:
    return jnp.cumsum(x_BL, axis=1), jnp.zeros_like(x_BL)
  x_BL = jnp.pad(x_BL, [(0, 0), (0, -L % BLOCK), *((0, 0) for _ in rest)])
  within_BnL = jnp.cumsum(x_BL.reshape(B, -1, BLOCK, *rest), axis=2)
  total_nB = jnp.moveaxis(within_BnL[:, :, -1], 1, 0)

  def add(sums, total):
    high, low = sums
    high, lost = add_exactly(high, total)
    return (high, low + lost), sums

  zero = jnp.zeros_like(total_nB[0])
  _, before = jax.lax.scan(add, (zero, zero), total_nB)
  high_BnL, low_BnL = (jnp.moveaxis(x, 0, 1)[:, :, None] for x in before)
  high_BnL, lost_BnL = add_exactly(high_BnL, within_BnL)

  def whole(x):
    return x.reshape(B, -1, *rest)[:, :L]

  return whole(high_BnL), whole(low_BnL + lost_BnL)


def _pull(_, d):
  d_high_BL, _ = d
  high_BL, low_BL = running(jnp.flip(d_high_BL, axis=1))
  return (jnp.flip(high_BL + low_BL, axis=1),)


running.defvjp(lambda x_BL: (running(x_BL), None), _pull)


def of_tokens(x_BL: jax.Array, at: Coords) -> jax.Array:
  """Returns the summands, [B, L, ...]: x, and zero where there is no token."""
  real_BL = at.real_BL.reshape(*at.real_BL.shape, *(1 for _ in x_BL.shape[2:]))
  return jnp.where(real_BL, x_BL, 0.0)


def add_exactly(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns the float32 sum and its rounding error. Knuth, 1969."""
  total = a + b
  part = total - a
  return total, (a - (total - part)) + (b - part)


def turns(high: jax.Array, low: jax.Array) -> jax.Array:
  """Returns the angles high + low, large ones modulo 2 pi."""
  count, rest = jnp.round(high / TURN), high
  for part in PARTS:  # their products with up to 2**16 turns are exact
    rest = rest - count * part
  return jnp.where(jnp.abs(high) > FAR, rest + low, high)


TURN = 6.283185307179586
FAR = 128.0  # radians, below which float32 is as exact as angles need
PARTS = 6.28125, 0.0019378662109375, -2.562999725341797e-06, 3.968374e-09  # of 8 bits
