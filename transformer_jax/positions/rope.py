"""Rotary position embedding. Su et al., 2021. https://arxiv.org/abs/2104.09864"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero

from transformer_jax.devices import platform
from transformer_jax.positions.base import PositionalEncoding, positions


@positions.register("rope")
@dataclasses.dataclass(frozen=True)
class Rope(PositionalEncoding):
  """Rotates each pair of features by an angle proportional to the position.

      s_ij = (R(i) q_i) . (R(j) k_j) / sqrt(K), R(p) turns pair m by p base^(-2 m / K)

  Scaled forms are subclasses that override `frequencies` and, where rotated features
  are scaled too, `gain`.

  base          the slowest pair turns about base times slower than the fastest
  interleaved   pairs are neighbours (2m, 2m + 1) as in the paper and GPT-J; else halves
                (m, m + K/2) as in GPT-NeoX and Llama
  fraction      fraction of a head's features that is rotated, the first ones
  reverse       by the negative angle, as in nanochat: s_ij is that of R(-i) and R(-j)

  >>> import transformer_jax as tj
  >>> rope = tj.positions.build("rope")
  >>> rope.frequencies({}, rope.pairs(8)).round(4).tolist()
  [1.0, 0.1, 0.01, 0.001]
  """

  base: float = 10_000.0
  interleaved: bool = False
  fraction: float = 1.0
  reverse: bool = dataclasses.field(default=False, kw_only=True)

  def __post_init__(self):
    if self.base <= 1:
      raise ValueError(f"rope needs a base above 1, not {self.base}")
    if not 0 <= self.fraction <= 1:
      raise ValueError(
        "rope: fraction is a share of a head's features; choose it from 0 to 1, not"
        f" {self.fraction}"
      )

  def pairs(self, K):
    """Returns R, the number of rotated pairs of a head's K features."""
    width = int(self.fraction * K)
    if width % 2:
      raise ValueError(
        f"rope needs an even number of features to make pairs of, not {width} of {K};"
        " change head_width or fraction"
      )
    return width // 2

  def frequencies(self, params, R):
    """Returns the radians per position of R pairs, fastest first: [R] or [H, R]."""
    return self.base ** (-np.arange(R) / R)

  def gain(self, params):
    """Returns the factor on the rotated features."""
    return 1.0

  def rotate(self, params, x_BLHK, pos_BL):
    frequency_R = self.frequencies(params, self.pairs(x_BLHK.shape[-1]))
    return self.turn(x_BLHK, angles(pos_BL, frequency_R), self.gain(params))

  def turn(self, x_BLHK, angle_BLHR, gain=1.0):
    """Returns x_BLHK with its first pairs rotated by the angles, times the gain."""
    angle_BLHR = -angle_BLHR if self.reverse else angle_BLHR
    return turn_pairs(x_BLHK, angle_BLHR, self.interleaved, gain)


@dataclasses.dataclass(frozen=True)
class ScaledRope(Rope):
  """Base class of RoPE scaled to longer texts than in training.

  factor   ratio of the new length to the training length

  >>> import transformer_jax as tj
  >>> scaled = tj.positions.build("rope_ntk(factor=8)")
  >>> scaled.factor, scaled.extrapolation
  (8, 'interpolated')
  """

  factor: float = 4.0
  extrapolation = "interpolated"

  def __post_init__(self):
    super().__post_init__()
    if self.factor < 1:
      raise ValueError(
        "rope: factor says how many times longer texts become; choose 1 or more, not"
        f" {self.factor}"
      )


def angles(pos_BL, frequency_R):
  """Returns angles that broadcast to [B, L, H, R], in float32."""
  pos_BL11 = pos_BL[:, :, None, None].astype(jnp.float32)
  return pos_BL11 * jnp.asarray(frequency_R, jnp.float32)


def middle(at):
  """Returns the mean position of the tokens of each row, [B, 1], or 0."""
  count_B1 = jnp.sum(at.real_BL, axis=1, keepdims=True)
  pos_BL = jnp.where(at.real_BL, at.pos_BL, 0).astype(jnp.float32)
  return jnp.sum(pos_BL, axis=1, keepdims=True) / jnp.maximum(count_B1, 1)


def turn_pairs(x_BLHK, angle_BLHR, interleaved, gain=1.0):
  """Returns x_BLHK with its first R pairs of features rotated; the others stay.

  In float32, which phases need. The gain broadcasts to the angles.
  """
  return _turned(interleaved, x_BLHK, angle_BLHR, jnp.asarray(gain, jnp.float32))


def _forward(interleaved, x_BLHK, angle_BLHR, gain):
  cos, sin = gain * jnp.cos(angle_BLHR), gain * jnp.sin(angle_BLHR)
  return _with_pairs(interleaved, x_BLHK, cos, sin)


def _with_pairs(interleaved, x_BLHK, cos, sin):
  """Returns x_BLHK with each pair (a, b) as (a cos - b sin, b cos + a sin)."""
  R, outer = cos.shape[-1], x_BLHK.shape[:-1]
  if interleaved:
    pairs = x_BLHK[..., : 2 * R].reshape(*outer, R, 2)
    a, b = (jax.lax.index_in_dim(pairs, n, -1, keepdims=False) for n in (0, 1))
  else:
    a, b = x_BLHK[..., :R], x_BLHK[..., R : 2 * R]
  a, b = a.astype(jnp.float32), b.astype(jnp.float32)
  both = a * cos - b * sin, b * cos + a * sin
  rotated = jnp.stack(both, -1) if interleaved else jnp.concatenate(both, -1)
  rotated = rotated.reshape(*outer, 2 * R).astype(x_BLHK.dtype)
  return jnp.concatenate([rotated, x_BLHK[..., 2 * R :]], axis=-1)


_turned = jax.custom_vjp(_forward, nondiff_argnums=(0,))


def _save(interleaved, x_BLHK, angle_BLHR, gain):
  # Features serve gradients of angles alone, which few encodings learn.
  learned = angle_BLHR.perturbed or gain.perturbed
  args = x_BLHK.value, angle_BLHR.value, gain.value
  return _turned(interleaved, *args), (args[0] if learned else None, *args[1:])


def _gradients(interleaved, residuals, d_BLHK):
  """Returns the features' gradient, turned by negative angles, and that of angles.

  JAX's own gradient adds each half to a float32 array of zeros, which a TPU keeps. The
  barrier has cosines and sines computed again there: kept since the forward pass they
  would lie in HBM, 2 MiB each for 8,192 tokens and heads of 128.
  """
  x_BLHK, angle_BLHR, gain = residuals
  if isinstance(d_BLHK, SymbolicZero):
    return None, None, None
  if platform() != "cpu":
    d_BLHK, angle_BLHR = jax.lax.optimization_barrier((d_BLHK, angle_BLHR))
  cos, sin = gain * jnp.cos(angle_BLHR), gain * jnp.sin(angle_BLHR)
  d_x_BLHK = _with_pairs(interleaved, d_BLHK, cos, -sin)
  if x_BLHK is None:
    return d_x_BLHK, None, None
  of_angles = functools.partial(_forward, interleaved, x_BLHK)
  return d_x_BLHK, *jax.vjp(of_angles, angle_BLHR, gain)[1](d_BLHK)


_turned.defvjp(_save, _gradients, symbolic_zeros=True)
