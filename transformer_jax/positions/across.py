"""One axis of positions for two texts, which Raffel et al., 2020, do without.

https://arxiv.org/abs/1910.10683
"""

import dataclasses

from transformer_jax.positions.base import PositionalEncoding, positions
from transformer_jax.positions.rope import Rope
from transformer_jax.positions.shared.wrapper import Wrapper


@positions.register("across")
@dataclasses.dataclass(frozen=True)
class Across(Wrapper):
  """Uses an encoding between decoder and encoder too.

      the encoding's own score, with decoder position i and encoder position j

  Position i of the one text and position i of the other are then one place, as suits
  tasks whose answer runs beside the source. Without this wrapper cross-attention sees
  no positions, other than those added to embeddings.

  encoding   any encoding that looks both ways and reads nothing off the tokens
  """

  encoding: PositionalEncoding = Rope()

  def __post_init__(self):
    super().__post_init__()
    if self.encoding.overrides("token_data"):
      raise ValueError(
        f"across: {self.encoding.name} reads the tokens of one text,"
        " which means nothing between two; use an encoding of positions alone"
      )

  def cross(self):
    return self.encoding.bidirectional()
