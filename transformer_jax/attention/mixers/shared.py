"""What several mixers share: decays, and vectors of length 1."""

import jax
import jax.numpy as jnp

RATES = (1.0, 16.0)  # of decay, in the first parameters
STEPS = (1e-3, 1e-1)  # of time, likewise


def log_decay(log_rate: jax.Array, step: jax.Array, shift: jax.Array) -> jax.Array:
  """Returns the logarithm of a factor on a state: -rate softplus(step + shift).

  Dao and Gu, 2024. https://arxiv.org/abs/2405.21060
  """
  time = jax.nn.softplus(step.astype(jnp.float32) + shift)
  return -jnp.exp(log_rate) * time


def first_log_rate(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """Returns first logarithms of rates, of rates that are uniform."""
  low, high = RATES
  return jnp.log(jax.random.uniform(key, shape, minval=low, maxval=high))


def first_step_shift(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """Returns first shifts, of steps whose logarithms are uniform."""
  low, high = jnp.log(jnp.array(STEPS))
  step = jnp.exp(jax.random.uniform(key, shape, minval=low, maxval=high))
  return step + jnp.log(-jnp.expm1(-step))  # the inverse of softplus


def unit(x: jax.Array) -> jax.Array:
  """Returns vectors of length 1 along the last axis."""
  return x * jax.lax.rsqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + 1e-6)
