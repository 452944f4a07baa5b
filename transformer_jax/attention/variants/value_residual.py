"""Value residual learning (ResFormer). Zhou et al., 2024.

https://arxiv.org/abs/2410.17897
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from transformer_jax.attention.variants.base import Variant, attentions
from transformer_jax.axes import axes_of
from transformer_jax.matmul import project_by
from transformer_jax.spec import SpecError

MIXES = ("scalar", "fixed", "token")


@attentions.register("value_residual")
@dataclasses.dataclass(frozen=True)
class ValueResidual(Variant):
  """Mixes the values of the first layer into those of each later one.

      v_n' = a v_1 + b v_n

  mix     scalar: a and b are learned numbers of each layer; fixed: they are not
          trained; token: b = sigmoid(w x + c) of each token and head, a = 1 - b, as in
          x-transformers
  first   a, the share of the first layer's values, or its first value
  own     b, likewise; with `token` it follows from `first`

  The first layer's own parameters are not used.

  >>> from transformer_jax.attention.carry import Carry
  >>> variant, carry = attentions.build("value_residual(mix='fixed')"), Carry()
  >>> for value in 2.0, 6.0:
  ...   kept = {"value": jnp.full((1, 1, 1, 1), value)}
  ...   kept, carry = variant.share({}, None, kept, carry)
  ...   print(kept["value"].item())
  2.0
  4.0
  """

  mix: str = "scalar"
  first: float = 0.5
  own: float = 0.5

  def __post_init__(self):
    if self.mix not in MIXES:
      raise SpecError(f"value_residual: mix is {self.mix!r}; write {', '.join(MIXES)}")
    if self.mix == "token" and not 0 < self.first < 1:
      raise SpecError(
        f"value_residual: first is {self.first!r}; with mix='token' write a share above"
        " 0 and below 1"
      )

  def weights(self, dims):
    if self.mix != "token":
      return {}
    return {f"value_share_D{_axis(dims)}": ((dims.D, dims.G or dims.H), 1)}

  def init(self, key, dims):
    if self.mix == "fixed":
      return {}
    if self.mix == "scalar":
      return {
        "first_gain": jnp.asarray(float(self.first)),
        "own_gain": jnp.asarray(float(self.own)),
      }
    shift = math.log((1 - self.first) / self.first)
    return {f"value_share_shift_{_axis(dims)}": jnp.full(dims.G or dims.H, shift)}

  def cross(self):
    return Variant()

  def reserved(self, kept):
    self._check(kept)
    return {"first_value": kept["value"]}

  def share(self, params, x_BLD, kept, carry):
    self._check(kept)
    own_BLGE = kept["value"]
    first_BLGE, carry_after = carry.once("first_value", own_BLGE)
    mixed_BLGE = self._mixed(params, x_BLD, first_BLGE, own_BLGE)
    if "first_value" not in carry.arrays:  # this is the first layer
      mixed_BLGE = own_BLGE
    elif "first_value" in carry.written:
      mixed_BLGE = jnp.where(carry.written["first_value"], mixed_BLGE, own_BLGE)
    return kept | {"value": mixed_BLGE}, carry_after

  def _mixed(self, params, x_BLD, first_BLGE, own_BLGE):
    if self.mix == "token":
      weight, shift = _share(params)
      score_BLG = project_by(x_BLD, params, weight).astype(jnp.float32)
      score_BLG += params[shift]
      own = jax.nn.sigmoid(score_BLG).astype(own_BLGE.dtype)[..., None]
      return own * own_BLGE + (1 - own) * first_BLGE
    first = jnp.asarray(params.get("first_gain", self.first), own_BLGE.dtype)
    own = jnp.asarray(params.get("own_gain", self.own), own_BLGE.dtype)
    return first * first_BLGE + own * own_BLGE

  def _check(self, kept):
    if "value" not in kept:
      raise ValueError(
        f"{self.name} mixes the values of layers, and this attention keeps"
        f" {', '.join(kept)} in their place; use heads, as in multihead or gqa(2)"
      )


def _axis(dims):
  return "G" if dims.G else "H"


def _share(params):
  """Returns the names of the weights and of the shift of the token's share."""
  found = {len(axes_of(n)): n for n in params if n.startswith("value_share")}
  return found[2], found[1]
