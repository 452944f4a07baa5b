"""Positional encodings in cross-attention: by default RoPE, Su et al., 2021.

https://arxiv.org/abs/2104.09864. No paper of its own; T5 has none there.
"""

import dataclasses

from transformer_jax.positions.base import PositionalEncoding, positions
from transformer_jax.positions.rope import Rope
from transformer_jax.positions.shared.wrapper import Wrapper


@positions.register("across")
@dataclasses.dataclass(frozen=True)
class Across(Wrapper):
  """Applies an encoding in cross-attention too.

      the encoding's own score, with decoder position i and encoder position j

  Both texts share one axis of positions, which suits tasks whose output is aligned with
  the source. Without this wrapper cross-attention has no positions, except those added
  to embeddings.

  encoding   any bidirectional encoding without token data

  >>> import transformer_jax as tj
  >>> tj.positions.build("rope").cross().name
  'none'
  >>> tj.positions.build("across(rope)").cross().name
  'rope'
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
