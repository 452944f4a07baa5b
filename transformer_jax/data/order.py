"""Random orders that do not depend on how far a string is padded."""

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
