"""Abacus embeddings: the place of a digit. McLeish et al., 2024.

https://arxiv.org/abs/2405.17399
"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.forwarding import computed
from transformer_jax.positions.base import PositionalEncoding, positions
from transformer_jax.positions.shared.wrapper import Wrapper


@positions.register("abacus")
@dataclasses.dataclass(frozen=True)
class Abacus(Wrapper):
  """Adds a learned vector for the place of a digit in its number, to any encoding.

      x_i + E[a_i], a_i the digit's place in its number

  The task supplies `abacus_BL`: 1, 2, ... within each number, 0: no digit, no vector.
  In training one random offset is added to all places of a batch, so that places of
  longer numbers are trained too. Past the table the result is NaN.

  encoding   any encoding, unchanged
  max_positions    rows of the table
  max_offset   the largest offset

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> at = tj.positions.coords.consecutive(1, 5)
  >>> at = at.replace(data={"abacus_BL": np.array([[1, 2, 0, 1, 2]])})  # 45+31
  >>> params = {"abacus_ND": np.array([[0.1], [0.2], [0.3]])}
  >>> embed = jax.jit(tj.positions.build("abacus(none, max_positions=3)").embed)
  >>> print(embed(params, np.zeros((1, 5, 1)), at)[0].T)
  [[0.1 0.2 0.  0.1 0.2]]
  """

  encoding: PositionalEncoding = PositionalEncoding()
  max_positions: int = 1024
  max_offset: int = 100

  @computed
  def extrapolation(self):
    return f"{self.encoding.extrapolation}, numbers of up to max_positions digits"

  @computed
  def ids(self):
    return tuple(dict.fromkeys(("abacus_BL", *self.encoding.ids)))

  def init(self, key, dims):
    table_ND = 0.02 * jax.random.normal(key, (self.max_positions, dims.D))
    inner = self.encoding.init(jax.random.fold_in(key, 1), dims)
    return inner | {"abacus_ND": table_ND}

  def in_layer(self, name):
    return name != "abacus_ND" and self.encoding.in_layer(name)

  def assign_positions(self, context, at):
    at.need(("abacus_BL",), "abacus")
    if context is None:
      return self.encoding.assign_positions(None, at)
    offset = jax.random.randint(context.key, (), 0, self.max_offset + 1)
    id_BL = at.data["abacus_BL"]
    moved = {"abacus_BL": jnp.where(id_BL > 0, id_BL + offset, 0)}
    return self.encoding.assign_positions(
      context.inner(), at.replace(data=at.data | moved)
    )

  def embed(self, params, x_BLD, at):
    id_BL = at.data["abacus_BL"]
    rows_BLD = params["abacus_ND"].at[id_BL - 1].get(mode="fill", fill_value=jnp.nan)
    rows_BLD = jnp.where(id_BL[..., None] > 0, rows_BLD, 0)
    return self.encoding.embed(params, x_BLD + rows_BLD.astype(x_BLD.dtype), at)
