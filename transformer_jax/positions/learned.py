"""Learned absolute positions. Gehring et al., 2017. https://arxiv.org/abs/1705.03122"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.positions.base import PositionalEncoding, positions


@positions.register("learned")
@dataclasses.dataclass(frozen=True)
class Learned(PositionalEncoding):
  """Adds a learned vector per position; outside of the table the result is NaN.

      x_i + E[i]

  max_positions   rows of the table; None: as many as the training length
  start     the row of position 0; OPT and RoBERTa leave rows before it unused

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> at = tj.positions.coords.consecutive(1, 4)
  >>> embed = jax.jit(tj.positions.build("learned(max_positions=3)").embed)
  >>> params = {"table_LD": np.array([[0.1], [0.2], [0.3]])}
  >>> print(embed(params, np.zeros((1, 4, 1)), at)[0].T)
  [[0.1 0.2 0.3 nan]]
  """

  max_positions: int | None = None
  start: int = 0
  relative = False
  integer_positions = True
  extrapolation = "table ends"

  def init(self, key, dims):
    shape = (self.num_positions(dims) + self.start, dims.D)
    return {"table_LD": 0.02 * jax.random.normal(key, shape)}

  def num_positions(self, dims):
    return (self.max_positions or dims.L + self.start) - self.start

  def embed(self, params, x_BLD, at):
    # JAX would clamp or wrap the index silently: undefined would look defined.
    rows_BLD = (
      params["table_LD"]
      .at[at.pos_BL + self.start]
      .get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
    )
    return x_BLD + rows_BLD.astype(x_BLD.dtype)
