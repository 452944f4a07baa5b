"""Jensen-Shannon divergence. Lin, 1991, https://doi.org/10.1109/18.61115."""

import jax
import jax.numpy as jnp


def jensen_shannon(p: jax.Array, q: jax.Array) -> jax.Array:
  """Returns the Jensen-Shannon divergence over the last axis, in nats: 0 to log 2.

  >>> p, q = jnp.array([[1.0, 0.0], [0.5, 0.5]]), jnp.array([[0.0, 1.0], [0.5, 0.5]])
  >>> [round(x, 3) for x in jensen_shannon(p, q).tolist()]
  [0.693, 0.0]
  """
  middle = (p + q) / 2
  return (_relative(p, middle) + _relative(q, middle)) / 2


def _relative(p: jax.Array, middle: jax.Array) -> jax.Array:
  """Returns the sum of p log(p / middle); 0 where p is 0, its gradient is finite.

  The middle of two probabilities is 0 where both are, or where half of one underflows.
  """
  some = (p > 0) & (middle > 0)
  ratio = jnp.where(some, p, 1.0) / jnp.where(some, middle, 1.0)
  return jnp.sum(jnp.where(some, p * jnp.log(ratio), 0.0), axis=-1)
