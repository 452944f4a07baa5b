"""Fourier position embedding. Hua et al., 2024. https://arxiv.org/abs/2412.17739"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.positions.base import PositionalEncoding, positions
from transformer_jax.positions.rope import angles


@positions.register("fope")
@dataclasses.dataclass(frozen=True)
class Fope(PositionalEncoding):
  """RoPE whose cosines and sines are learned mixtures of frequencies, in every head.

      cos_n -> sum over r of cosine_rn cos(i theta_r), sin_n likewise with its own

  Frequencies that do not complete a turn in training are dropped; at most K / 4
  mixtures of the others turn pairs (n, n + K/2). The remaining pairs are multiplied by
  constants, as in the authors' code: cosine and sine 1. Mixtures of waves are no
  rotations: scores depend on positions, not on distances alone.

  base     the slowest pair turns about base times slower than the fastest
  length   tokens in which a frequency must complete a turn; 0: a training sequence
  sine     of the remaining pairs; 0 leaves them as they are, as the paper says
  gain     of the random part of initial mixtures, in units of Xavier's deviation; the
           other part is the identity

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> params = {"cosine_HRN": np.ones((1, 2, 1)), "sine_HRN": np.zeros((1, 2, 1))}
  >>> rotate = jax.jit(tj.positions.build("fope(base=100, sine=0)").rotate)
  >>> x_BLHK = rotate(params, np.ones((1, 2, 1, 4)), np.array([[0, 10]]))
  >>> print(np.asarray(x_BLHK)[0, :, 0].round(2))  # cos(10) + cos(1) is -0.3
  [[ 2.   1.   2.   1. ]
   [-0.3  1.  -0.3  1. ]]
  """

  base: float = 10_000.0
  length: int = 0
  sine: float = 1.0
  gain: float = 0.3
  relative = False
  per_layer = True

  def __post_init__(self):
    if self.base <= 1:
      raise ValueError(f"fope needs a base above 1, not {self.base}")
    if self.length < 0:
      raise ValueError(f"fope: length is {self.length}; write a number of tokens")

  def init(self, key, dims):
    if dims.K % 2 or dims.K < 4:
      raise ValueError(
        f"fope needs an even head width of at least 4, not {dims.K}; change head_width"
      )
    frequency_R = self.frequencies(dims.K)
    turns_R = frequency_R * (self.length or dims.L) / (2 * math.pi)
    R = max(1, int(np.sum(turns_R >= 1)))  # the fastest one stays in short sequences
    N = min(R, dims.K // 4)
    start_RN = (
      jnp.zeros((R, N)).at[jnp.arange(N) * -(-R // N) % R, jnp.arange(N)].set(1)
    )
    # PyTorch counts the fans of [H, R, N] so.
    deviation = self.gain * math.sqrt(2 / ((R + dims.H) * N))
    keys = dict(zip(("cosine_HRN", "sine_HRN"), jax.random.split(key), strict=True))
    shape = dims.H, R, N
    return {
      name: start_RN + deviation * jax.random.normal(key, shape)
      for name, key in keys.items()
    }

  def frequencies(self, K: int) -> np.ndarray:
    """Returns the radians per position of K / 2 pairs, fastest first."""
    return self.base ** (-np.arange(0, K, 2) / K)

  def rotate(self, params, x_BLHK, pos_BL):
    R, N = params["cosine_HRN"].shape[1:]
    K = x_BLHK.shape[-1]
    angle_BL1R = angles(pos_BL, self.frequencies(K)[:R])

    def waves(function, name, rest):
      wave_BLR = function(angle_BL1R)[:, :, 0]
      mixed_BLHN = jnp.einsum("BLR,HRN->BLHN", wave_BLR, params[name])
      pad = [(0, 0)] * 3 + [(0, K // 2 - N)]
      return jnp.pad(mixed_BLHN, pad, constant_values=rest)

    cos = waves(jnp.cos, "cosine_HRN", 1.0)
    sin = waves(jnp.sin, "sine_HRN", self.sine)
    a, b = jnp.split(x_BLHK.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
    return turned.astype(x_BLHK.dtype)
