"""xPos: rotary embedding that decays. Sun et al., 2022. https://arxiv.org/abs/2212.10554"""

import dataclasses

import jax.numpy as jnp
import numpy as np

from transformer_jax.positions.base import positions
from transformer_jax.positions.rope import Rope, angles, middle

LARGEST = 40.0  # exp(40) on both sides multiplies to less than float32 holds


@positions.register("xpos")
@dataclasses.dataclass(frozen=True)
class XPos(Rope):
  """Rotates as RoPE, and decays each pair's product with the distance.

      s_ij = sum over m of zeta_m^(i - j) (R(i) q_i)_m . (R(j) k_j)_m / sqrt(K),
        zeta_m = ((2 m / K + gamma) / (1 + gamma))^(1 / scale_base)

  Queries shrink and keys grow with the position, measured from the middle of the text,
  which cancels. Fast pairs decay fastest. In texts of more than 60 * scale_base tokens
  the decay is clamped at both ends, so nothing overflows.

  scale_base   positions per step of decay; 1 in the paper, 512 in its code
  gamma        the larger, the slower all pairs decay

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> at, x_BLHK = tj.positions.coords.consecutive(1, 5), np.ones((1, 5, 1, 2))
  >>> transform = jax.jit(tj.positions.build("xpos(scale_base=4)").transform_qk)
  >>> q, k = (np.asarray(x)[0, :, 0] for x in transform({}, x_BLHK, x_BLHK, at, at))
  >>> print((np.linalg.norm(k, axis=1) * np.linalg.norm(q[4]) / 2).round(2))
  [0.29 0.39 0.53 0.73 1.  ]
  """

  interleaved: bool = True
  scale_base: float = 512.0
  gamma: float = 0.4
  extrapolation = "decays"
  centred = True

  def __post_init__(self):
    super().__post_init__()
    if self.scale_base <= 0 or self.gamma <= 0:
      raise ValueError(
        "xpos needs scale_base and gamma above 0, not"
        f" {self.scale_base} and {self.gamma}"
      )

  def bidirectional(self):
    raise ValueError(
      "xpos grows with the distance to keys in the future and has no meaning for them;"
      " use it in a decoder"
    )

  def transform_qk(self, params, q_BLHK, k_BMHK, q_at, k_at):
    def turn(x, at, sign):
      return self._turn(params, x, at.pos_BL, middle(k_at), sign)

    return turn(q_BLHK, q_at, 1), turn(k_BMHK, k_at, -1)

  def _turn(self, params, x_BLHK, pos_BL, middle_B1, sign):
    R = self.pairs(x_BLHK.shape[-1])
    rate_R = np.log((np.arange(R) / max(R, 1) + self.gamma) / (1 + self.gamma))
    grown_BL1R = angles(pos_BL - middle_B1, sign * rate_R / self.scale_base)
    gain_BL1R = jnp.exp(jnp.clip(grown_BL1R, -LARGEST, LARGEST))
    angle_BL1R = angles(pos_BL, self.frequencies(params, R))
    return self.turn(x_BLHK, angle_BL1R, gain_BL1R)
