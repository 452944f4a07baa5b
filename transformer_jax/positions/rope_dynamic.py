"""Dynamic NTK interpolation. emozilla, 2023, in Peng et al.

https://arxiv.org/abs/2309.00071
"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.positions.base import positions
from transformer_jax.positions.rope import ScaledRope, angles
from transformer_jax.positions.rope_ntk import divisors


@dataclasses.dataclass(frozen=True)
class LengthRope(ScaledRope):
  """RoPE whose frequencies depend on the length of the text so far.

  The length is the highest position in a token's text, plus one. As it grows all tokens
  change: see "Decoding" in docs/positions.md.

  original   the length up to which nothing changes; None: that of training texts

  >>> import transformer_jax as tj
  >>> dynamic = tj.positions.build("rope_dynamic(original=512)")
  >>> dynamic.stable_length(tj.Dims(V=2, D=64, H=8, F=8, L=128))
  512
  """

  original: int | None = None
  relative = False
  needs_full_text = True
  extrapolation = "interpolated by length"

  def __post_init__(self):
    super().__post_init__()
    if self.original is not None and self.original < 2:
      raise ValueError(
        f"original is a length in tokens; choose 2 or more, not {self.original}"
      )

  def constants(self, dims):
    return {"original": jnp.float32(self.original or dims.L)}

  def stable_length(self, dims):
    return self.original or dims.L

  def frequencies_of(self, params, R, length_BL11, pos_BL11):
    """Returns radians per position, [B, L, 1, R], in texts of these lengths."""
    raise NotImplementedError

  def transform_qk(self, params, q_BLHK, k_BMHK, q_at, k_at):
    def rotated(x_BLHK, at):
      R, pos_BL11 = self.pairs(x_BLHK.shape[-1]), at.pos_BL[:, :, None, None]
      length_BL11 = lengths(at, k_at)[:, :, None, None].astype(jnp.float32)
      frequency_BL1R = self.frequencies_of(params, R, length_BL11, pos_BL11)
      angle_BL1R = angles(at.pos_BL, frequency_BL1R)
      return self.turn(x_BLHK, angle_BL1R, self.gain(params))

    return rotated(q_BLHK, q_at), rotated(k_BMHK, k_at)


@positions.register("rope_dynamic")
@dataclasses.dataclass(frozen=True)
class DynamicRope(LengthRope):
  """Raises the base of RoPE as the text outgrows the original length.

      base' = base (factor l - (factor - 1))^(K / (K - 2)), l = L / original

  factor   at a length of l times the original the slowest pair is divided by
           factor * l - (factor - 1); 1 divides it by l, as in the paper

  >>> import jax
  >>> import transformer_jax as tj
  >>> dynamic = tj.positions.build("rope_dynamic")
  >>> frequencies = jax.jit(dynamic.frequencies_of, static_argnums=1)
  >>> params = {"original": 1024}  # the trained length
  >>> for length in 1024, 2048, 8192:
  ...   print(frequencies(params, R=2, length_BL11=length, pos_BL11=0))
  [1.   0.01]
  [1.    0.005]
  [1.      0.00125]
  """

  factor: float = 1.0

  def frequencies_of(self, params, R, length_BL11, pos_BL11):
    times_BL11 = jnp.maximum(length_BL11 / params["original"], 1.0)
    divisor_BL1R = divisors(self.factor * times_BL11 - (self.factor - 1), R)
    return self.frequencies(params, R) / divisor_BL1R


def lengths(at, k_at):
  """Returns the highest position of each token's text, plus one, [B, L]."""
  end_BM = jnp.where(k_at.real_BL, k_at.pos_BL + 1, 0)

  def length(segment_B):
    own_BM = segment_B[:, None] == k_at.segment_BL
    return jnp.max(jnp.where(own_BM, end_BM, 0), axis=1)

  # Some queries at a time: all at once would be an array of [B, L, M].
  return jax.lax.map(length, at.segment_BL.T, batch_size=128).T
