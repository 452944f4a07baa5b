"""Learned rows and columns. Dosovitskiy et al., 2021. https://arxiv.org/abs/2010.11929"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.positions.base import PositionalEncoding, positions
from transformer_jax.positions.sinusoidal_2d import on_grid


@positions.register("learned_2d")
@dataclasses.dataclass(frozen=True)
class Learned2d(PositionalEncoding):
  """Adds a trained vector per row and one per column; past the tables it is NaN.

      x + E_row[row] + E_column[column]

  Nothing is added to a token outside of the grid (a negative row), such as a class
  token. The paper tries halves of the features for each; here both use all features.

  height, width   rows and columns of the largest grid

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> at = tj.positions.coords.grid(2, 2)
  >>> params = {"row_ND": np.array([[10.0], [20]]), "column_ND": np.array([[1.0], [2]])}
  >>> embed = jax.jit(tj.positions.build("learned_2d(height=2, width=2)").embed)
  >>> print(embed(params, np.zeros((1, 4, 1)), at)[0].T)
  [[11. 12. 21. 22.]]
  """

  height: int = 32
  width: int = 32
  relative = False
  integer_positions = True
  ids = ("row_BL", "column_BL")
  extrapolation = "table ends"

  def init(self, key, dims):
    keys = jax.random.split(key)
    return {
      "row_ND": 0.02 * jax.random.normal(keys[0], (self.height, dims.D)),
      "column_ND": 0.02 * jax.random.normal(keys[1], (self.width, dims.D)),
    }

  def embed(self, params, x_BLD, at):
    row_BL, column_BL, on_BL = on_grid(at)

    # JAX would clamp the index silently: undefined would look defined.
    def read(table_ND, n_BL):
      return table_ND.at[n_BL].get(mode="fill", fill_value=jnp.nan)

    place_BLD = read(params["row_ND"], row_BL) + read(params["column_ND"], column_BL)
    return x_BLD + jnp.where(on_BL[..., None], place_BLD, 0).astype(x_BLD.dtype)
