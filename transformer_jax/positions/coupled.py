"""Position coupling. Cho et al., 2024. https://arxiv.org/abs/2405.20671"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.forwarding import computed
from transformer_jax.positions.base import PositionalEncoding, positions
from transformer_jax.positions.learned import Learned
from transformer_jax.positions.shared.wrapper import Wrapper


@positions.register("coupled")
@dataclasses.dataclass(frozen=True)
class Coupled(Wrapper):
  """Assigns one position to coupled tokens, such as digits of one column.

      p_i = the number that the task gives the token, plus a random start in training

  The task supplies the positions, `coupled_BL`: from 1 on; 0: not coupled. In training
  a random start is added to them, drawn for each row within max_positions; 0 stays 0.
  Past the table the inner encoding's `extrapolation` holds.

  encoding   any encoding; a table gets max_positions + 1 rows
  max_positions    the largest position

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> at = tj.positions.coords.consecutive(1, 5)
  >>> at = at.replace(data={"coupled_BL": np.array([[1, 2, 0, 1, 2]])})  # 45+31
  >>> tj.positions.build("coupled").assign_positions(None, at).pos_BL.tolist()
  [[1, 2, 0, 1, 2]]
  """

  encoding: PositionalEncoding = Learned()
  max_positions: int = 256

  @computed
  def ids(self):
    return tuple(dict.fromkeys(("coupled_BL", *self.encoding.ids)))

  def init(self, key, dims):
    dims = dataclasses.replace(dims, L=self.max_positions + 1)
    end = self.encoding.num_positions(dims)
    if end is not None and end <= self.max_positions:
      raise ValueError(
        f"coupled uses positions up to {self.max_positions}, but {self.encoding} ends"
        " at"
        f" {end}; give it max_positions={self.max_positions + 1}"
      )
    return self.encoding.init(key, dims)

  def num_positions(self, dims):
    # How many tokens share a position is the task's affair: no length is too long.
    return None

  def stable_length(self, dims):
    # Positions may be anything from the first token on.
    return None if self.encoding.stable_length(dims) is None else 0

  def assign_positions(self, context, at):
    at.need(("coupled_BL",), "coupled")
    id_BL = at.data["coupled_BL"]
    if context is None:
      return self.encoding.assign_positions(None, at.replace(pos_BL=id_BL))
    free_B1 = self.max_positions - jnp.max(id_BL, axis=1, keepdims=True)
    start_B1 = jax.random.randint(context.key, (context.batch_size, 1), 0, free_B1 + 1)
    pos_BL = jnp.where(id_BL > 0, id_BL + start_B1, 0)
    return self.encoding.assign_positions(context.inner(), at.replace(pos_BL=pos_BL))
