"""Partial rotary embedding. Black et al., 2022. https://arxiv.org/abs/2204.06745"""

import dataclasses

from transformer_jax.positions.base import positions
from transformer_jax.positions.rope import Rope


@positions.register("partial_rope")
@dataclasses.dataclass(frozen=True)
class PartialRope(Rope):
  """Rotates only the first quarter of each head, with frequencies for that width.

      q' = [R(i) q_1..r, q_r+1..K]; k likewise

  The other features match by content alone, as in GPT-NeoX and Pythia.
  """

  fraction: float = 0.25
