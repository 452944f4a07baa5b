"""Rotary embedding without its slowest pairs. Barbero et al., 2024.

https://arxiv.org/abs/2410.06205
"""

import dataclasses

from transformer_jax.positions.base import positions
from transformer_jax.positions.rope import Rope


@positions.register("p_rope")
@dataclasses.dataclass(frozen=True)
class PRope(Rope):
  """Rotates only the fastest pairs of RoPE's full width.

      theta_m = base^(-2 m / K) for the fastest pairs, 0 for the others

  The other pairs match by content alone, at any distance.

  p   fraction of the pairs that are rotated; 1: RoPE, 0: no positions

  >>> import transformer_jax as tj
  >>> tj.positions.build("p_rope(p=0.75)").frequencies({}, 4).round(4).tolist()
  [1.0, 0.1, 0.01, 0.0]
  """

  p: float = 0.75

  def __post_init__(self):
    super().__post_init__()
    if not 0 <= self.p <= 1:
      raise ValueError(
        f"p_rope: p is the share of pairs that turn; choose it from 0 to 1, not"
        f" {self.p}"
      )

  def frequencies(self, params, R):
    frequency_R = super().frequencies(params, R)
    frequency_R[int(self.p * (2 * R) // 2) :] = 0
    return frequency_R
