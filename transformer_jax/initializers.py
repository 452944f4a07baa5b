"""Initial values of parameters."""

import jax


def fan_in_uniform(key: jax.Array, shape: tuple[int, ...], fan_in: int) -> jax.Array:
  """Returns uniform numbers between -1 / sqrt(fan_in) and 1 / sqrt(fan_in).

  The default of PyTorch's linear layers and convolutions, for weights and shifts.
  fan_in   inputs of each unit
  """
  edge = fan_in**-0.5
  return jax.random.uniform(key, shape, minval=-edge, maxval=edge)
