"""Random orders, of a string however far it is padded, and of examples to score."""

import jax
import jax.numpy as jnp


def shuffled(random_N: jax.Array, length: jax.Array | int) -> jax.Array:
  """Returns the numbers below `length` in random order, then those from there on.

  random_N: uint32
  """
  beyond_N = jnp.arange(random_N.shape[0]) >= length
  return jnp.argsort(
    jnp.where(beyond_N, jnp.uint32(jnp.iinfo(jnp.uint32).max), random_N)
  )


def each_once(key: jax.Array, examples: int, rows: int) -> jax.Array:
  """Returns the numbers of up to `rows` different examples, in random order."""
  return jax.random.permutation(key, examples)[:rows]
