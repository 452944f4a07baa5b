"""LongRoPE. Ding et al., 2024. https://arxiv.org/abs/2402.13753"""

import dataclasses

import jax.numpy as jnp

from transformer_jax.positions.base import positions
from transformer_jax.positions.rope_dynamic import LengthRope
from transformer_jax.positions.rope_ntk import divisors


@positions.register("longrope")
@dataclasses.dataclass(frozen=True)
class LongRope(LengthRope):
  """Divides each frequency of RoPE by a searched number, in long texts.

      theta_m = base^(-2 m / K) / divisor_m; q and k grow by
        sqrt(1 + ln(factor) / ln(original))

  The divisors belong to a model. Two lists and a gain, as in Phi-3.

  factor   ratio of the new length to the original; rotated features are multiplied by
           sqrt(1 + ln(factor) / ln(original)), also in short texts
  short    a divisor for each pair up to the original length; none: 1
  long     the same beyond it; none: those of rope_ntk, where the search starts
  first    number of positions at the start of a text that are not interpolated

  >>> import jax
  >>> import transformer_jax as tj
  >>> longrope = tj.positions.build("longrope(short=(1, 1), long=(2, 10))")
  >>> frequencies = jax.jit(longrope.frequencies_of, static_argnums=1)
  >>> params = {"original": 1024}  # the trained length
  >>> for length in 1024, 1025:
  ...   print(frequencies(params, R=2, length_BL11=length, pos_BL11=0))
  [1.   0.01]
  [0.5   0.001]
  """

  factor: float = 8.0
  short: tuple[float, ...] = ()
  long: tuple[float, ...] = ()
  first: int = 0

  def __post_init__(self):
    super().__post_init__()
    for name in ("short", "long"):
      object.__setattr__(self, name, tuple(getattr(self, name)))

  def gain(self, params):
    # Both are at least 1, and a factor of 1 is a gain of 1.
    return jnp.sqrt(1 + jnp.log(self.factor) / jnp.log(params["original"]))

  def frequencies_of(self, params, R, length_BL11, pos_BL11):
    short_R = self._list("short", R, divisors(1.0, R))
    long_R = self._list("long", R, divisors(self.factor, R))
    divisor_BL1R = jnp.where(length_BL11 > params["original"], long_R, short_R)
    divisor_BL1R = jnp.where(pos_BL11 < self.first, 1.0, divisor_BL1R)
    return self.frequencies(params, R) / divisor_BL1R

  def _list(self, name, R, default_R):
    given = getattr(self, name)
    if given and len(given) != R:
      raise ValueError(
        f"longrope turns {R} pairs of features, but {name} has {len(given)} divisors;"
        " give one for each pair"
      )
    return jnp.array(given or default_R, jnp.float32)
