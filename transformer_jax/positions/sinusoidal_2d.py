"""Fixed sinusoids of row and column. Carion et al., 2020.

https://arxiv.org/abs/2005.12872
"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.positions.base import PositionalEncoding, positions
from transformer_jax.positions.coords import Coords
from transformer_jax.positions.sinusoidal import sinusoids


@positions.register("sinusoidal_2d")
@dataclasses.dataclass(frozen=True)
class Sinusoidal2d(PositionalEncoding):
  """Adds waves of the column to half of the features, of the row to the others.

      x + [sinusoids(column), sinusoids(row)]

  Order: sines of the column, its cosines, sines of the row, its cosines. Nothing is
  added to a token outside of the grid (a negative row), such as a class token.

  base   the slowest wave is about base times slower than the fastest
  detr   the row comes first, sine and cosine alternate, and places count from 1, as in
         DETR's code where it does not scale them by the size of the image

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> at = tj.positions.coords.grid(2, 2)
  >>> embed = jax.jit(tj.positions.build("sinusoidal_2d").embed)
  >>> print(np.asarray(embed({}, np.zeros((1, 4, 4)), at)[0]).round(2))
  [[0.   1.   0.   1.  ]
   [0.84 0.54 0.   1.  ]
   [0.   1.   0.84 0.54]
   [0.84 0.54 0.84 0.54]]
  """

  base: float = 10_000.0
  detr: bool = False
  relative = False
  ids = ("row_BL", "column_BL")

  def embed(self, params, x_BLD, at):
    D = x_BLD.shape[-1]
    if D % 4:
      raise ValueError(f"sinusoidal_2d needs a width divisible by 4, not {D}")
    row_BL, column_BL, on_BL = on_grid(at)
    axes = (row_BL + 1, column_BL + 1) if self.detr else (column_BL, row_BL)
    waves = (sinusoids(n_BL, D // 2, self.base, self.detr) for n_BL in axes)
    waves_BLD = jnp.where(on_BL[..., None], jnp.concatenate([*waves], axis=-1), 0)
    return x_BLD + waves_BLD.astype(x_BLD.dtype)


def on_grid(at: Coords) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Returns row_BL, column_BL and a mask of tokens on the grid; 0 elsewhere.

  They may be fractions, as where a finer grid is interpolated to the trained one.
  """
  row_BL, column_BL = at.data["row_BL"], at.data["column_BL"]
  on_BL = (row_BL >= 0) & (column_BL >= 0)
  return jnp.where(on_BL, row_BL, 0), jnp.where(on_BL, column_BL, 0), on_BL
