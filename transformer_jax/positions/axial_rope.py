"""Rotary encoding in two dimensions. Heo et al., 2024. https://arxiv.org/abs/2403.13298"""

import dataclasses

import jax.numpy as jnp

from transformer_jax.positions.base import PositionalEncoding, positions
from transformer_jax.positions.rope import turn_pairs
from transformer_jax.positions.sinusoidal_2d import on_grid


@positions.register("axial_rope")
@dataclasses.dataclass(frozen=True)
class AxialRope(PositionalEncoding):
  """Rotates half of the pairs of features by the column, the other half by the row.

      q' = R(column) q on half of the pairs, R(row) q on the others; k likewise

  Pairs are neighbours (2m, 2m + 1), those of the column first. A token outside of the
  grid (a negative row), such as a class token, is not rotated.

  base    the slowest pair turns about base times slower than the fastest
  width   number of rotated features, divisible by 4; None: all

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> at, x_BLHK = tj.positions.coords.grid(2, 2), np.tile([1.0, 0], (1, 4, 1, 2))
  >>> transform = jax.jit(tj.positions.build("axial_rope").transform_qk)
  >>> print(np.asarray(transform({}, x_BLHK, x_BLHK, at, at)[0][0, :, 0]).round(2))
  [[1.   0.   1.   0.  ]
   [0.54 0.84 1.   0.  ]
   [1.   0.   0.54 0.84]
   [0.54 0.84 0.54 0.84]]
  """

  base: float = 100.0
  width: int | None = None
  ids = ("row_BL", "column_BL")

  def transform_qk(self, params, q_BLHK, k_BMHK, q_at, k_at):
    return self._rotated(q_BLHK, q_at), self._rotated(k_BMHK, k_at)

  def _rotated(self, x_BLHK, at):
    K = x_BLHK.shape[-1]
    width = K // 4 * 4 if self.width is None else self.width
    if not 4 <= width <= K or width % 4:
      raise ValueError(
        f"axial_rope turns {width} of {K} features; give a width from 4 to {K} that 4"
        " divides, or wider heads"
      )
    row_BL, column_BL, _ = on_grid(at)
    frequency_R = self.base ** (-jnp.arange(width // 4) / (width // 4))
    angles = (n_BL[..., None] * frequency_R for n_BL in (column_BL, row_BL))
    angle_BL1R = jnp.concatenate([*angles], axis=-1)[:, :, None]
    rotated = turn_pairs(x_BLHK[..., :width], angle_BL1R, interleaved=True)
    return jnp.concatenate([rotated, x_BLHK[..., width:]], axis=-1)
