"""Rotary position embedding. Su et al., 2021. https://arxiv.org/abs/2104.09864"""

import dataclasses

import jax.numpy as jnp

from transformer_jax.positions.base import PositionalEncoding, positions


@positions.register("rope")
@dataclasses.dataclass(frozen=True)
class Rope(PositionalEncoding):
  """Turns each pair of features by an angle proportional to the position.

  base          the slowest pair turns about base times slower than the fastest
  interleaved   pairs are neighbours (2m, 2m + 1) as in the paper and GPT-J; else halves
                (m, m + K/2) as in GPT-NeoX and Llama
  """

  base: float = 10_000.0
  interleaved: bool = False

  def rotate(self, params, x_BLHK, pos_BL):
    K = x_BLHK.shape[-1]
    if K % 2:
      raise ValueError(f"rope needs an even head width, not {K}")
    frequency_R = self.base ** (-jnp.arange(K // 2, dtype=jnp.float32) / (K // 2))
    angle_BL1R = pos_BL[:, :, None, None].astype(jnp.float32) * frequency_R
    return turn_pairs(x_BLHK, angle_BL1R, self.interleaved)


def turn_pairs(x_BLHK, angle_BLHR, interleaved):
  """Rotates pairs of features, in float32 since a phase has no bits to lose."""
  axis = -1 if interleaved else -2
  shape = (*x_BLHK.shape[:-1], -1, 2) if interleaved else (*x_BLHK.shape[:-1], 2, -1)
  pairs = x_BLHK.astype(jnp.float32).reshape(shape)
  a, b = jnp.take(pairs, 0, axis), jnp.take(pairs, 1, axis)
  cos, sin = jnp.cos(angle_BLHR), jnp.sin(angle_BLHR)
  turned = jnp.stack([a * cos - b * sin, b * cos + a * sin], axis)
  return turned.reshape(x_BLHK.shape).astype(x_BLHK.dtype)
