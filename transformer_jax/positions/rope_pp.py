"""RoPE++: rotary encoding with imaginary heads. Liu et al., 2025.

https://arxiv.org/abs/2512.07525
"""

import dataclasses

import jax.numpy as jnp
import numpy as np

from transformer_jax.positions.base import positions
from transformer_jax.positions.rope import Rope


@positions.register("rope_pp")
@dataclasses.dataclass(frozen=True)
class RopePlusPlus(Rope):
  """RoPE in real heads, and with queries turned a quarter less in imaginary heads.

      s_ij = (R(i) q_i) . (R(j) k_j) / sqrt(K) in real heads,
             (R(i) R(-90 degrees) q_i) . (R(j) k_j) / sqrt(K) in imaginary heads

  These are real and imaginary part of one complex product of query and key. With
  `attention=twin_queries` head 2n and its neighbour 2n + 1 have the same query, which
  is the paper's RoPE++; with other attention each head has its own.

  heads   imaginary ones: "odd" (1, 3, ...), "half" (the second half) or "all"

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> at, x_BLHK = tj.positions.coords.consecutive(1, 1), np.ones((1, 1, 2, 2))
  >>> transform = jax.jit(tj.positions.build("rope_pp").transform_qk)
  >>> q_BLHK, k_BLHK = transform({}, x_BLHK, x_BLHK, at, at)
  >>> print(np.asarray(q_BLHK)[0, 0].round(2) + 0)
  [[ 1.  1.]
   [ 1. -1.]]
  """

  heads: str = "odd"

  def __post_init__(self):
    super().__post_init__()
    if self.heads not in ("odd", "half", "all"):
      raise ValueError(
        f"rope_pp: heads is {self.heads!r}; write 'odd', 'half' or 'all'"
      )

  def imaginary(self, H: int) -> np.ndarray:
    """Returns which of H heads are imaginary, a mask_H."""
    n = np.arange(H)
    return {"odd": n % 2 == 1, "half": n >= H // 2, "all": n >= 0}[self.heads]

  def transform_qk(self, params, q_BLHK, k_BMHK, q_at, k_at):
    R = self.pairs(q_BLHK.shape[-1])
    imaginary_H1 = self.imaginary(q_BLHK.shape[2])[:, None]
    back_BLHK = quarter_turn_back(q_BLHK, R, self.interleaved)
    q_BLHK = jnp.where(imaginary_H1, back_BLHK, q_BLHK)
    q_BLHK = self.rotate(params, q_BLHK, q_at.pos_BL)
    return q_BLHK, self.rotate(params, k_BMHK, k_at.pos_BL)


def quarter_turn_back(x_BLHK, R, interleaved):
  """Returns x_BLHK with its first R pairs (a, b) turned to (b, -a), exactly."""
  outer = x_BLHK.shape[:-1]
  axis, inner = (-1, (R, 2)) if interleaved else (-2, (2, R))
  pairs = x_BLHK[..., : 2 * R].reshape(*outer, *inner)
  a, b = jnp.take(pairs, 0, axis), jnp.take(pairs, 1, axis)
  turned = jnp.stack([b, -a], axis).reshape(*outer, 2 * R)
  return jnp.concatenate([turned, x_BLHK[..., 2 * R :]], axis=-1)
