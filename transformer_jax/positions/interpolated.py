"""Position interpolation. Chen et al., 2023. https://arxiv.org/abs/2306.15595"""

import dataclasses

from transformer_jax.positions.base import PositionalEncoding, positions
from transformer_jax.positions.rope import Rope
from transformer_jax.positions.shared.wrapper import Wrapper


@positions.register("interpolated")
@dataclasses.dataclass(frozen=True)
class Interpolated(Wrapper):
  """Divides the positions by a factor in evaluation; training is unchanged.

      p' = p in training, p / factor in evaluation

  A text `factor` times as long as in training then stays in the trained range, at
  fractional positions. The paper also fine-tunes after the division; `rope_linear`
  divides from the start.

  encoding   any encoding that is defined between whole positions
  factor     divisor of the positions

  >>> import transformer_jax as tj
  >>> interpolated = tj.positions.build("interpolated(rope, factor=4)")
  >>> at = tj.positions.coords.consecutive(1, 5)
  >>> interpolated.assign_positions(None, at).pos_BL.tolist()
  [[0.0, 0.25, 0.5, 0.75, 1.0]]
  """

  encoding: PositionalEncoding = Rope()
  factor: float = 4.0
  extrapolation = "interpolated"

  def __post_init__(self):
    super().__post_init__()
    refuse_tables("interpolated", self.encoding)
    if self.factor <= 0:
      raise ValueError(f"interpolated: factor is {self.factor}; give a positive one")

  def num_positions(self, dims):
    end = self.encoding.num_positions(dims)
    return None if end is None else int((end - 1) * self.factor) + 1

  def stable_length(self, dims):
    end = self.encoding.stable_length(dims)
    # Some encodings count positions, others tokens.
    return end if not end else min(end, int((end - 1) * self.factor) + 1)

  def assign_positions(self, context, at):
    if context is None:
      return self.encoding.assign_positions(
        None, at.replace(pos_BL=at.pos_BL / self.factor)
      )
    return self.encoding.assign_positions(context.inner(), at)


def refuse_tables(name: str, encoding: PositionalEncoding) -> None:
  """Raises ValueError if an encoding is undefined between whole positions."""
  if encoding.integer_positions:
    raise ValueError(
      f"{name} asks for positions between whole numbers, and"
      f" {encoding.name} has a table of whole ones; use it with a"
      " formula of the position, such as rope, sinusoidal or fire"
    )
