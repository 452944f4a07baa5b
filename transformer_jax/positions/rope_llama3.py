"""Llama 3.1's long rotary embedding. Grattafiori et al., 2024.

https://arxiv.org/abs/2407.21783
"""

import dataclasses

from transformer_jax.positions.base import positions
from transformer_jax.positions.rope import ScaledRope
from transformer_jax.positions.rope_yarn import check_ramp, interpolate, kept_by_turns


@positions.register("rope_llama3")
@dataclasses.dataclass(frozen=True)
class Llama3Rope(ScaledRope):
  """Interpolates the slow pairs of RoPE and keeps the fast ones; no gain.

      theta_m -> theta_m (fast pairs), theta_m / factor (slow ones), a ramp between

  The defaults are those of Llama 3.1.

  original     the length of training texts
  fast, slow   pairs that turn more often than `fast` in that length stay, those that
               turn less often than `slow` are interpolated

  >>> import transformer_jax as tj
  >>> rope, llama3 = map(tj.positions.build, ("rope(base=5e5)", "rope_llama3"))
  >>> divisor_R = rope.frequencies({}, 64) / llama3.frequencies({}, 64)
  >>> divisor_R[24:40:2].round(2).tolist()
  [1.0, 1.0, 1.0, 1.55, 2.69, 5.26, 8.0, 8.0]
  """

  base: float = 500_000.0
  factor: float = 8.0
  original: int = 8192
  fast: float = 4.0
  slow: float = 1.0

  def __post_init__(self):
    super().__post_init__()
    check_ramp("rope_llama3", self)

  def frequencies(self, params, R):
    plain_R = super().frequencies(params, R)
    return interpolate(plain_R, self, kept_by_turns(plain_R, self))
