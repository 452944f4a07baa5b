"""Shifted absolute positions. Kiyono et al., 2021. https://arxiv.org/abs/2109.05644"""

import dataclasses

import jax

from transformer_jax.positions.base import PositionalEncoding, positions
from transformer_jax.positions.shared.wrapper import Wrapper
from transformer_jax.positions.sinusoidal import Sinusoidal


@positions.register("shape")
@dataclasses.dataclass(frozen=True)
class Shape(Wrapper):
  """Shifts each row of a training batch by a random number of positions.

      p' = p + shift, random in training

  An absolute encoding so learns to ignore where a text starts; a relative one does not
  change. Evaluation has no shift.

  encoding   any encoding; a table gets `max_shift` more rows
  max_shift   the largest shift

  >>> import jax
  >>> import transformer_jax as tj
  >>> at = tj.positions.coords.consecutive(1, 4)
  >>> context = tj.positions.TrainContext(jax.random.key(0), batch_size=2)
  >>> shape = tj.positions.build("shape(sinusoidal)")
  >>> jax.jit(shape.assign_positions)(context, at).pos_BL.tolist()
  [[352, 353, 354, 355], [255, 256, 257, 258]]
  """

  encoding: PositionalEncoding = Sinusoidal()
  max_shift: int = 500

  def init(self, key, dims):
    room = self._room(dims)
    end = self.encoding.num_positions(room)
    if end is not None and end < room.L:
      raise ValueError(
        f"shape moves {dims.L} tokens by up to {self.max_shift}, but {self.encoding}"
        f" ends at {end}; raise its max_positions to {room.L} or lower max_shift"
      )
    return self.encoding.init(key, room)

  def num_positions(self, dims):
    return self.encoding.num_positions(self._room(dims))

  def assign_positions(self, context, at):
    if context is None:
      return self.encoding.assign_positions(None, at)
    shape = (context.batch_size, 1)
    shift_B1 = jax.random.randint(context.key, shape, 0, self.max_shift + 1)
    return self.encoding.assign_positions(
      context.inner(), at.replace(pos_BL=at.pos_BL + shift_B1)
    )

  def _room(self, dims):
    """Returns sizes whose L includes the largest shift, for tables."""
    return dataclasses.replace(dims, L=dims.L + self.max_shift)
