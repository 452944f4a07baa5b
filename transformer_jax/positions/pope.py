"""Polar coordinate position embedding. Gopalakrishnan et al., 2025.

https://arxiv.org/abs/2509.10534
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.positions.base import PositionalEncoding, positions
from transformer_jax.positions.rope import angles, middle


@positions.register("pope")
@dataclasses.dataclass(frozen=True)
class Pope(PositionalEncoding):
  """Represents features in polar form: softplus as length, position as angle.

      s_ij = sum over m of softplus(q_im) softplus(k_jm) cos((i - j) theta_m -
        delta_m) / sqrt(K)

  A score sums, over features, both lengths times the cosine of an angle proportional to
  the distance plus a learned phase: content cannot change the angle.
  Queries and keys get twice as wide; scores are still scaled by 1 / sqrt(K).

  base      the slowest feature turns about base times slower than the fastest
  anywhere  initial phases are random between -2 pi and 0; else 0, which generalizes
            best to longer texts in the paper

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> at = tj.positions.coords.consecutive(1, 4)
  >>> x_BLHK = np.full((1, 4, 1, 1), np.log(np.e - 1))  # softplus of it is 1
  >>> transform = jax.jit(tj.positions.build("pope").transform_qk)
  >>> q, k = transform({"phase_HK": np.zeros((1, 1))}, x_BLHK, x_BLHK, at, at)
  >>> print((np.asarray(q)[0, 3, 0] @ np.asarray(k)[0, :, 0].T).round(2))  # cos(i - j)
  [-0.99 -0.42  0.54  1.  ]
  """

  base: float = 10_000.0
  anywhere: bool = False
  per_layer = True
  centred = True

  def init(self, key, dims):
    lowest = -2 * math.pi if self.anywhere else 0.0
    phase_HK = jax.random.uniform(key, (dims.H, dims.K), minval=lowest, maxval=0.0)
    return {"phase_HK": phase_HK}

  def transform_qk(self, params, q_BLHK, k_BMHK, q_at, k_at):
    K, phase_HK = q_BLHK.shape[-1], params["phase_HK"]
    frequency_K = self.base ** (-np.arange(K) / K)
    # `jnp.clip` would halve the gradient at 0, where phases start.
    allowed_HK = (phase_HK >= -2 * math.pi) & (phase_HK <= 0)
    phase_HK = jnp.where(allowed_HK, phase_HK, jnp.where(phase_HK > 0, 0, -2 * math.pi))

    # A start in the middle changes no score, and keeps the digits of a phase.
    def angle(at):
      return angles(at.pos_BL - middle(k_at), frequency_K)

    return polar(q_BLHK, angle(q_at)), polar(k_BMHK, angle(k_at) + phase_HK)


def polar(x_BLHK, angle_BLHK):
  """Returns polar coordinates as [r cos, r sin], twice as wide."""
  length_BLHK = jax.nn.softplus(x_BLHK.astype(jnp.float32))
  parts = [length_BLHK * jnp.cos(angle_BLHK), length_BLHK * jnp.sin(angle_BLHK)]
  return jnp.concatenate(parts, axis=-1).astype(x_BLHK.dtype)
