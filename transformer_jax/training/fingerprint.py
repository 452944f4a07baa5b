"""Fingerprints of arrays, because a flipped bit on disk is restored silently.

Two wrap-around uint32 sums per leaf: of its bits, and of its bits weighted by odd
numbers that depend on the place. Sums have no order, so the fingerprint is equal on
every sharding. Any single flipped bit changes the first, a swap changes the second.
"""

from typing import Any

import jax
import jax.numpy as jnp

GOLDEN = 2654435761  # 2**32 / golden ratio: neighbours get unlike weights
UNSIGNED = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}


def fingerprints(leaves: dict[str, Any]) -> dict[str, list[int]]:
  """Returns two numbers per named array, computed where the array lives."""
  # One small program per shape: parameters and their two moments share it, and so do
  # the runs of a sweep.
  sums = {name: _sums(leaf) for name, leaf in leaves.items()}
  return {name: both.tolist() for name, both in jax.device_get(sums).items()}


@jax.jit
def _sums(leaf: jax.Array) -> jax.Array:
  bits = _bits(leaf)
  place = jnp.zeros(bits.shape, jnp.uint32)
  for axis, size in enumerate(bits.shape):
    step = jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
    place = place * jnp.uint32(size) + step
  weight = (place * jnp.uint32(GOLDEN)) | jnp.uint32(1)
  total = lambda x: jnp.sum(x, dtype=jnp.uint32)
  return jnp.stack([total(bits), total(bits * weight)])


def _bits(leaf: jax.Array) -> jax.Array:
  """Returns the leaf's bits as uint32; 8-byte values become two."""
  if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
    leaf = jax.random.key_data(leaf)
  if leaf.dtype == jnp.bool_:
    leaf = leaf.astype(jnp.uint8)
  unsigned = UNSIGNED[leaf.dtype.itemsize]
  return jax.lax.bitcast_convert_type(leaf, unsigned).astype(jnp.uint32)
