"""Random order of a range by index: the n-th number, without a list of all.

A Feistel network permutes the numbers of 2h bits; those outside the range are mapped
again until they fall inside (cycle walking). Black and Rogaway, 2002,
https://doi.org/10.1007/3-540-45760-7_9.
"""

import jax
import jax.numpy as jnp

ROUNDS = 6


def shuffled(key: jax.Array, index: jax.Array, size: jax.Array | int) -> jax.Array:
  """Returns the number at a place of a random order of the numbers below `size`.

  key     determines the order
  index   int32 place in it, from 0 to size - 1
  size    length of the range, up to 2^30

  >>> key = jax.random.key(0)
  >>> sorted(shuffled(key, jnp.int32(place), 5).item() for place in range(5))
  [0, 1, 2, 3, 4]
  """
  round_keys = jax.random.bits(key, (ROUNDS,), jnp.uint32)
  half = _half_bits(size)

  def permute(x: jax.Array) -> jax.Array:
    low = (jnp.uint32(1) << half) - 1
    left, right = x >> half, x & low
    for n in range(ROUNDS):
      left, right = right, left ^ (_mixed(right ^ round_keys[n]) & low)
    return (left << half) | right

  first = permute(jnp.uint32(index))
  inside = jax.lax.while_loop(lambda x: x >= jnp.uint32(size), permute, first)
  return inside.astype(jnp.int32)


def _half_bits(size: jax.Array | int) -> jax.Array:
  """Returns the least h for which 2h bits hold all numbers below `size`."""
  bits = 32 - jax.lax.clz(jnp.uint32(size) - 1)
  return (jnp.maximum(bits, 2) + 1) // 2


def _mixed(x: jax.Array) -> jax.Array:
  """Returns a hash of 32 bits (the finalizer of MurmurHash3, Appleby, 2011)."""
  x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
  x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
  return x ^ (x >> 16)
