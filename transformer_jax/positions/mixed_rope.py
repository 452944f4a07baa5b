"""Rotary encoding with learned directions. Heo et al., 2024.

https://arxiv.org/abs/2403.13298
"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.positions.base import PositionalEncoding, positions
from transformer_jax.positions.rope import turn_pairs
from transformer_jax.positions.sinusoidal_2d import on_grid


@positions.register("mixed_rope")
@dataclasses.dataclass(frozen=True)
class MixedRope(PositionalEncoding):
  """Rotates each pair by a learned mixture of row and column, in every head and layer.

      angle_m = theta_m . (column, row), theta_m learned per head and layer

  Pairs are neighbours (2m, 2m + 1). A token outside of the grid (a negative row), such
  as a class token, is not rotated.

  base   of the initial frequencies, which are axial, with directions rotated by a
         random angle in each head; 10 as in the authors' code

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> at, x_BLHK = tj.positions.coords.grid(2, 2), np.tile([1.0, 0], (1, 4, 1, 1))
  >>> params = {"column_HR": np.array([[1.0]]), "row_HR": np.array([[0.5]])}
  >>> transform = jax.jit(tj.positions.build("mixed_rope").transform_qk)
  >>> cos, sin = np.asarray(transform(params, x_BLHK, x_BLHK, at, at)[0][0, :, 0]).T
  >>> print(np.arctan2(sin, cos).round(2))
  [0.  1.  0.5 1.5]
  """

  base: float = 10.0
  per_layer = True
  ids = ("row_BL", "column_BL")

  def init(self, key, dims):
    if dims.K % 2:
      raise ValueError(f"mixed_rope needs an even head width, not {dims.K}")
    R = dims.K // 2
    m_R = jnp.arange(R)
    size_R = self.base ** (-(m_R // 2) / (R / 2))
    turn_H1 = jax.random.uniform(key, (dims.H, 1), maxval=2 * jnp.pi)
    # Neighbouring pairs have one frequency and look in directions that are at right
    # angles, as column and row are.
    angle_HR = turn_H1 + jnp.pi / 2 * (m_R % 2)
    return {
      "column_HR": size_R * jnp.cos(angle_HR),
      "row_HR": size_R * jnp.sin(angle_HR),
    }

  def transform_qk(self, params, q_BLHK, k_BMHK, q_at, k_at):
    return self._rotated(params, q_BLHK, q_at), self._rotated(params, k_BMHK, k_at)

  def _rotated(self, params, x_BLHK, at):
    row_BL11, column_BL11 = (n_BL[:, :, None, None] for n_BL in on_grid(at)[:2])
    angle_BLHR = column_BL11 * params["column_HR"] + row_BL11 * params["row_HR"]
    return turn_pairs(x_BLHK, angle_BLHR, interleaved=True)
