"""Decimal digits of numbers, as classes. Charton, 2021, whose encodings it simplifies.

https://arxiv.org/abs/2112.01898
"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.spec import SpecError
from transformer_jax.training.objectives.base import RegressionObjective, objectives


@objectives.register("digits")
@dataclasses.dataclass(frozen=True)
class Digits(RegressionObjective):
  """Cross-entropy of the sign and of each decimal digit of a number, their sum.

  All are predicted at once, from one state; what the model says is the number with the
  likeliest sign and digits. Larger numbers count as the largest one, 99.99 by default.

  integers   digits before the point
  decimals   digits after it

  >>> sign, digits = decimals_of(jnp.array(-3.14), integers=2, decimals=2)
  >>> int(sign), digits.tolist()
  (1, [0, 3, 1, 4])
  >>> Digits().per_number  # two signs and four times ten digits
  42
  """

  integers: int = 2
  decimals: int = 2

  def __post_init__(self):
    # More digits than float32 has would be noise.
    if self.integers < 1 or self.decimals < 0 or self.integers + self.decimals > 7:
      raise SpecError(
        f"digits: {self.integers} digits before the point and {self.decimals} after it;"
        " write at least one before it, and 7 at most together"
      )

  @property
  def per_number(self) -> int:
    return 2 + 10 * (self.integers + self.decimals)

  def number_losses(self, outputs_BLNP, target_BLN):
    sign_BLN2, digit_BLNKV = self._cut(outputs_BLNP)
    sign_BLN, digit_BLNK = decimals_of(target_BLN, self.integers, self.decimals)
    return _entropy(sign_BLN2, sign_BLN) + _entropy(digit_BLNKV, digit_BLNK).sum(-1)

  def points(self, outputs_BLNP):
    sign_BLN2, digit_BLNKV = self._cut(outputs_BLNP)
    power_K = 10.0 ** (self.integers - 1 - jnp.arange(self.integers + self.decimals))
    size_BLN = jnp.sum(jnp.argmax(digit_BLNKV, axis=-1) * power_K, axis=-1)
    return jnp.where(jnp.argmax(sign_BLN2, axis=-1) == 1, -size_BLN, size_BLN)

  def _cut(self, outputs_BLNP: jax.Array) -> tuple[jax.Array, jax.Array]:
    sign_BLN2, rest = outputs_BLNP[..., :2], outputs_BLNP[..., 2:]
    return sign_BLN2, rest.reshape(*rest.shape[:-1], -1, 10)


def decimals_of(
  number: jax.Array, integers: int, decimals: int
) -> tuple[jax.Array, jax.Array]:
  """Returns the sign, 1 below 0, and the digits on a last axis, int32."""
  most = 10 ** (integers + decimals) - 1
  whole = jnp.round(jnp.abs(number) * 10**decimals).astype(jnp.int32)
  power_K = 10 ** jnp.arange(integers + decimals)[::-1]
  digits = jnp.minimum(whole, most)[..., None] // power_K % 10
  return (number < 0).astype(jnp.int32), digits


def _entropy(logits: jax.Array, label: jax.Array) -> jax.Array:
  chosen = jax.nn.log_softmax(logits, axis=-1)
  return -jnp.take_along_axis(chosen, label[..., None], axis=-1)[..., 0]
