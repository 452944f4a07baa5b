"""Position coupling. Cho et al., 2024. https://arxiv.org/abs/2405.20671"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.positions.base import PositionalEncoding, Wrapper, positions
from transformer_jax.positions.learned import Learned


@positions.register("coupled")
@dataclasses.dataclass(frozen=True)
class Coupled(Wrapper):
  """Gives tokens that belong together, such as digits of one column, one position.

  The task supplies the positions, `coupled_BL`: from 1 on, 0 where a token belongs to
  no other. In training each row adds a random start to them, as far as there are
  positions; 0 stays 0. What lies past the table is as undefined as the encoding says.

  encoding   any encoding; a table gets longest + 1 rows
  longest    the largest position
  """

  encoding: PositionalEncoding = Learned()
  longest: int = 256

  @property
  def ids(self):
    return tuple(dict.fromkeys(("coupled_BL", *self.encoding.ids)))

  def init(self, key, dims):
    dims = dataclasses.replace(dims, L=self.longest + 1)
    end = self.encoding.reach(dims)
    if end is not None and end <= self.longest:
      raise ValueError(
        f"coupled uses positions up to {self.longest}, but {self.encoding} ends at"
        f" {end}; give it longest={self.longest + 1}"
      )
    return self.encoding.init(key, dims)

  def reach(self, dims):
    # How many tokens share a position is the task's affair: no length is too long.
    return None

  def settled(self, dims):
    # Positions may be anything from the first token on.
    return None if self.encoding.settled(dims) is None else 0

  def place(self, moment, at):
    at.need(("coupled_BL",), "coupled")
    id_BL = at.data["coupled_BL"]
    if moment is None:
      return self.encoding.place(None, at.replace(pos_BL=id_BL))
    free_B1 = self.longest - jnp.max(id_BL, axis=1, keepdims=True)
    start_B1 = jax.random.randint(moment.key, (moment.rows, 1), 0, free_B1 + 1)
    pos_BL = jnp.where(id_BL > 0, id_BL + start_B1, 0)
    return self.encoding.place(moment.inner(), at.replace(pos_BL=pos_BL))
