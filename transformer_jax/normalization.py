"""Root-mean-square and layer normalization, in float32."""

import jax
import jax.numpy as jnp


def inverse_rms(
  x: jax.Array, epsilon: float | jax.Array, axis: int | tuple[int, ...] = -1
) -> jax.Array:
  """Returns 1 / sqrt(mean(x^2) + epsilon) along an axis, whose length becomes one."""
  square = jnp.mean(jnp.square(x), axis=axis, keepdims=True)
  return jax.lax.rsqrt(square + epsilon)


def rms_norm(
  x: jax.Array,
  gain: jax.Array | None,
  epsilon: float | jax.Array,
  axis: int | tuple[int, ...] = -1,
) -> jax.Array:
  """Returns x with a mean square of one, times a gain, in the float type of x.

  None leaves out the gain.
  Zhang and Sennrich, 2019. https://arxiv.org/abs/1910.07467
  """
  scaled = x.astype(jnp.float32)
  scaled = scaled * inverse_rms(scaled, epsilon, axis)
  return (scaled if gain is None else scaled * gain).astype(x.dtype)


def layer_norm(
  x: jax.Array,
  gain: jax.Array | None,
  shift: jax.Array | None,
  epsilon: float,
) -> jax.Array:
  """Returns x with zero mean and unit variance along the last axis, then gain, shift.

  None leaves out the gain or the shift. Ba et al., 2016.
  https://arxiv.org/abs/1607.06450
  """
  centered = x.astype(jnp.float32)
  centered -= jnp.mean(centered, axis=-1, keepdims=True)
  scaled = centered * inverse_rms(centered, epsilon)
  scaled = scaled if gain is None else scaled * gain
  return (scaled if shift is None else scaled + shift).astype(x.dtype)
