"""Fixed sinusoids added to the embeddings. Vaswani et al., 2017.

https://arxiv.org/abs/1706.03762
"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.positions.base import PositionalEncoding, positions


@positions.register("sinusoidal")
@dataclasses.dataclass(frozen=True)
class Sinusoidal(PositionalEncoding):
  """Adds sines and cosines of the position, from fast to slow.

      x_i + [sin(i theta_m), cos(i theta_m)], theta_m = base^(-2 m / D)

  base          the slowest wave is about base times slower than the fastest
  interleaved   sine and cosine alternate as in the paper; else sines come first
  full_range    the slowest wave is exactly base times slower, as in the paper's code,
                Tensor2Tensor (with interleaved=False)

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> at = tj.positions.coords.consecutive(1, 3)
  >>> embed = jax.jit(tj.positions.build("sinusoidal").embed)
  >>> print(np.asarray(embed({}, np.zeros((1, 3, 4)), at)[0]).round(2))
  [[ 0.    1.    0.    1.  ]
   [ 0.84  0.54  0.01  1.  ]
   [ 0.91 -0.42  0.02  1.  ]]
  """

  base: float = 10_000.0
  interleaved: bool = True
  full_range: bool = False
  relative = False

  def embed(self, params, x_BLD, at):
    waves_BLD = sinusoids(
      at.pos_BL, x_BLD.shape[-1], self.base, self.interleaved, self.full_range
    )
    return x_BLD + waves_BLD.astype(x_BLD.dtype)


def sinusoids(
  pos_BL: jax.Array,
  D: int,
  base: float = 10_000.0,
  interleaved: bool = True,
  full_range: bool = False,
) -> jax.Array:
  """Returns sines and cosines of the positions, [..., D] in float32.

  pos_BL        positions, of any shape [...]
  D             even width
  base          the slowest wave is about base times slower than the fastest
  interleaved   sine and cosine alternate; else sines come first
  full_range    the slowest wave is exactly base times slower

  Raises ValueError where D is odd.
  """
  if D % 2:
    raise ValueError(f"sinusoids need an even width, not {D}")
  steps = max(D // 2 - 1, 1) if full_range else D // 2
  frequency_R = base ** (-jnp.arange(D // 2, dtype=jnp.float32) / steps)
  angle_BLR = pos_BL[..., None].astype(jnp.float32) * frequency_R
  waves = jnp.sin(angle_BLR), jnp.cos(angle_BLR)
  if interleaved:
    return jnp.stack(waves, axis=-1).reshape(*pos_BL.shape, D)
  return jnp.concatenate(waves, axis=-1)
