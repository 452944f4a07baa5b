"""Timestep embeddings: the step of an episode. Chen et al., 2021, section 3.

https://arxiv.org/abs/2106.01345
"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.forwarding import computed
from transformer_jax.positions.base import PositionalEncoding, positions
from transformer_jax.positions.shared.wrapper import Wrapper


@positions.register("timestep")
@dataclasses.dataclass(frozen=True)
class Timestep(Wrapper):
  """Adds a learned vector for the step of an episode, to any encoding.

      x_i + E[t_i], t_i the step of token i in its episode

  The task supplies `step_BL`, from 0; a negative step has no vector. Positions are
  those of the window that a model reads, steps those of the whole episode. Past the
  table the result is NaN.

  encoding        any encoding, unchanged; the paper has none
  max_positions   rows of the table

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> at = tj.positions.coords.consecutive(1, 4)
  >>> at = at.replace(data={"step_BL": np.array([[7, 7, 7, 8]])})
  >>> params = {"step_ND": 0.1 * np.arange(9.0)[:, None]}
  >>> embed = jax.jit(tj.positions.build("timestep(max_positions=9)").embed)
  >>> print(embed(params, np.zeros((1, 4, 1)), at)[0].T.round(1))
  [[0.7 0.7 0.7 0.8]]
  """

  encoding: PositionalEncoding = PositionalEncoding()
  max_positions: int = 512

  @computed
  def extrapolation(self):
    return f"{self.encoding.extrapolation}, episodes of up to max_positions steps"

  @computed
  def ids(self):
    return tuple(dict.fromkeys(("step_BL", *self.encoding.ids)))

  def init(self, key, dims):
    table_ND = 0.02 * jax.random.normal(key, (self.max_positions, dims.D))
    inner = self.encoding.init(jax.random.fold_in(key, 1), dims)
    return inner | {"step_ND": table_ND}

  def in_layer(self, name):
    return name != "step_ND" and self.encoding.in_layer(name)

  def embed(self, params, x_BLD, at):
    at.need(("step_BL",), "timestep")
    step_BL = at.data["step_BL"]
    rows_BLD = params["step_ND"].at[step_BL].get(mode="fill", fill_value=jnp.nan)
    rows_BLD = jnp.where(step_BL[..., None] >= 0, rows_BLD, 0)
    return self.encoding.embed(params, x_BLD + rows_BLD.astype(x_BLD.dtype), at)
