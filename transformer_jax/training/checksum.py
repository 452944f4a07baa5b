"""Checksums of arrays, which detect bits flipped on disk.

XXH3 with 128 bits over the bytes of the whole array in row-major order, read on the
host. It is equal on every mesh and sharding, and differs after any change of the bytes.
Checkpoints of older versions store two wrap-around sums instead, and are compared by
them. A pair of sign flips can leave both sums unchanged.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xxhash

from transformer_jax import global_arrays

GOLDEN = 2654435761  # 2**32 / golden ratio: neighbours get unlike weights
UNSIGNED = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}


def fingerprints(leaves: dict[str, Any]) -> dict[str, str]:
  """Returns the checksum of each named array as 32 hexadecimal digits."""
  # One array after another: the host holds no more than the largest.
  return {name: _checksum(leaf) for name, leaf in leaves.items()}


def differing(leaves: dict[str, Any], saved: dict[str, Any]) -> list[str]:
  """Returns the names of the arrays whose fingerprint is not the saved one."""
  names = []
  for name, leaf in leaves.items():
    old = isinstance(saved[name], list)
    if saved[name] != (_sums(leaf).tolist() if old else _checksum(leaf)):
      names.append(name)
  return names


def _checksum(leaf: jax.Array) -> str:
  return xxhash.xxh3_128_hexdigest(_bytes(leaf).data)


def _bytes(leaf: jax.Array) -> np.ndarray:
  """Returns the bytes of the whole array, on a CPU mostly without a copy."""
  if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
    leaf = jax.random.key_data(leaf)
  return np.ascontiguousarray(global_arrays.read(leaf)).reshape(-1).view(np.uint8)


@jax.jit
def _sums(leaf: jax.Array) -> jax.Array:
  """Returns the two sums of older checkpoints: of the bits, and of weighted bits."""
  bits = _bits(leaf)
  place = jnp.zeros(bits.shape, jnp.uint32)
  for axis, size in enumerate(bits.shape):
    step = jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
    place = place * jnp.uint32(size) + step
  weight = (place * jnp.uint32(GOLDEN)) | jnp.uint32(1)
  total = functools.partial(jnp.sum, dtype=jnp.uint32)
  return jnp.stack([total(bits), total(bits * weight)])


def _bits(leaf: jax.Array) -> jax.Array:
  """Returns the leaf's bits as uint32; 8-byte values become two."""
  if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
    leaf = jax.random.key_data(leaf)
  if leaf.dtype == jnp.bool_:
    leaf = leaf.astype(jnp.uint8)
  unsigned = UNSIGNED[leaf.dtype.itemsize]
  return jax.lax.bitcast_convert_type(leaf, unsigned).astype(jnp.uint32)
