"""Randomized positions over any encoding. Ruoss et al., 2023.

https://arxiv.org/abs/2305.16843
"""

import dataclasses

from transformer_jax.positions import coords
from transformer_jax.positions.base import PositionalEncoding, Wrapper, positions


@positions.register("randomized")
@dataclasses.dataclass(frozen=True)
class Randomized(Wrapper):
  """Trains on sorted random positions, so that large ones are not new at test time.

  Without a key (evaluation, decoding) token n is at n * step. An encoding inside that
  places tokens too goes on from there: `randomized(interpolated(rope))`.

  encoding   any encoding
  longest    positions are drawn below it
  step       the distance between neighbours without a key
  """

  encoding: PositionalEncoding = PositionalEncoding()
  longest: int = 2048
  step: int = 1

  def init(self, key, dims):
    dims = dataclasses.replace(dims, L=self.longest)
    end = self.encoding.reach(dims)
    if end is not None and end < self.longest:
      raise ValueError(
        f"randomized draws positions below {self.longest}, but {self.encoding} ends at"
        f" {end}; make the two longest alike"
      )
    return self.encoding.init(key, dims)

  def reach(self, dims):
    # Only a table ends; what is a formula of the position goes on past `longest`.
    end = self.encoding.reach(dataclasses.replace(dims, L=self.longest))
    return None if end is None else -(-self.longest // self.step)

  def place(self, moment, at):
    if moment is None:
      return self.encoding.place(None, at.replace(pos_BL=at.pos_BL * self.step))
    at = coords.randomized(moment.key, at, self.longest)
    return self.encoding.place(moment.inner(), at)
