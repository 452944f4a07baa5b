"""Shifted absolute positions. Kiyono et al., 2021. https://arxiv.org/abs/2109.05644"""

import dataclasses

import jax

from transformer_jax.positions.base import PositionalEncoding, Wrapper, positions
from transformer_jax.positions.sinusoidal import Sinusoidal


@positions.register("shape")
@dataclasses.dataclass(frozen=True)
class Shape(Wrapper):
  """Moves each row of a training batch by its own random number of positions.

  So an absolute encoding learns not to care where a text starts; a relative one stays
  what it is. In evaluation nothing moves.

  encoding   any encoding; a table gets `furthest` more rows
  furthest   the largest shift
  """

  encoding: PositionalEncoding = Sinusoidal()
  furthest: int = 500

  def init(self, key, dims):
    room = self._room(dims)
    end = self.encoding.reach(room)
    if end is not None and end < room.L:
      raise ValueError(
        f"shape moves {dims.L} tokens by up to {self.furthest}, but {self.encoding}"
        f" ends at {end}; raise its longest to {room.L} or lower furthest"
      )
    return self.encoding.init(key, room)

  def reach(self, dims):
    return self.encoding.reach(self._room(dims))

  def place(self, moment, at):
    if moment is None:
      return self.encoding.place(None, at)
    shape = (moment.rows, 1)
    shift_B1 = jax.random.randint(moment.key, shape, 0, self.furthest + 1)
    return self.encoding.place(moment.inner(), at.replace(pos_BL=at.pos_BL + shift_B1))

  def _room(self, dims):
    """Returns sizes with room for the largest shift, which a table must have."""
    return dataclasses.replace(dims, L=dims.L + self.furthest)
