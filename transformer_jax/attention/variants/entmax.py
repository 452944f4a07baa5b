"""Softmax with weights that can be exactly zero. Peters et al., 2019.

https://arxiv.org/abs/1905.05702; learned alpha: Correia et al., 2019,
https://arxiv.org/abs/1909.00015; alpha 2: Martins and Astudillo, 2016,
https://arxiv.org/abs/1602.02068
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp

from transformer_jax.attention.variant import Variant, attentions
from transformer_jax.spec import SpecError

HALVINGS = 30  # of an interval of length 1: well below what float32 tells apart


@attentions.register("entmax")
@dataclasses.dataclass(frozen=True)
class Entmax(Variant):
  """The weights max(0, (alpha - 1) score - t) ** (1 / (alpha - 1)) that add up to one.

  alpha     above 1, where it is a softmax, up to 2, where it is `sparsemax`
  learned   each head learns its own alpha between 1 and 2, and starts at `alpha`
  """

  alpha: float = 1.5
  learned: bool = False

  def __post_init__(self):
    if not (isinstance(self.alpha, (int, float)) and 1 < self.alpha <= 2):
      raise SpecError(
        f"entmax: alpha is {self.alpha!r}; write a number above 1, up to 2"
      )
    if self.learned and self.alpha == 2:
      raise SpecError("entmax: a learned alpha starts below 2; write alpha=1.5")

  def init(self, key, dims):
    if not self.learned:
      return {}
    start = math.log((self.alpha - 1) / (2 - self.alpha))  # sigmoid gives alpha - 1
    return {"alpha_logit_H": jnp.full(dims.H, start)}

  def weigh(self, params, s_BHLM, seen_B1LM):
    alpha = jnp.full((1, 1, 1), self.alpha)
    if self.learned:
      alpha = 1 + jax.nn.sigmoid(params["alpha_logit_H"])[:, None, None]
    return entmax(alpha, s_BHLM, seen_B1LM, power(self))


def power(variant: Entmax) -> float | None:
  """Returns 1 / (alpha - 1) if it is known while compiling: products are faster."""
  return None if variant.learned else 1 / (variant.alpha - 1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def entmax(
  alpha_H11: jax.Array,
  s_BHLM: jax.Array,
  seen_B1LM: jax.Array,
  power: float | None = None,
) -> jax.Array:
  """Returns weights over the keys that are seen; a row that sees none is zero.

  The threshold t is found by halving the interval in which it must lie.
  """
  p_H11 = 1 / (alpha_H11 - 1) if power is None else power
  top_BHL1 = jnp.max(s_BHLM, axis=-1, keepdims=True, where=seen_B1LM, initial=-1e30)
  # The best key is at 0, and a key at -1 gets nothing, whatever the others are.
  x_BHLM = jnp.where(seen_B1LM, (alpha_H11 - 1) * (s_BHLM - top_BHL1), -1.0)
  weigh = lambda t_BHL1: jnp.maximum(x_BHLM - t_BHL1, 0.0) ** p_H11

  def halve(_, ends):
    low, high = ends
    middle = (low + high) / 2
    enough = jnp.sum(weigh(middle), axis=-1, keepdims=True) >= 1
    return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

  zero_BHL1 = jnp.zeros_like(top_BHL1)
  low_BHL1, _ = jax.lax.fori_loop(0, HALVINGS, halve, (zero_BHL1 - 1, zero_BHL1))
  w_BHLM = jnp.where(seen_B1LM, weigh(low_BHL1), 0.0)
  return w_BHLM / jnp.maximum(jnp.sum(w_BHLM, axis=-1, keepdims=True), 1e-30)


def _forward(alpha_H11, s_BHLM, seen_B1LM, power):
  w_BHLM = entmax(alpha_H11, s_BHLM, seen_B1LM, power)
  return w_BHLM, (alpha_H11, w_BHLM)


def _backward(power, kept, g_BHLM):
  """Jacobians of both papers: only keys with a weight take part."""
  alpha_H11, w_BHLM = kept
  some_BHLM = w_BHLM > 0
  w_BHLM = jnp.where(some_BHLM, w_BHLM, 1.0)
  total = lambda x_BHLM: jnp.sum(x_BHLM, axis=-1, keepdims=True)
  slope_BHLM = jnp.where(some_BHLM, w_BHLM ** (2 - alpha_H11), 0.0)
  share_BHLM = slope_BHLM / jnp.maximum(total(slope_BHLM), 1e-30)
  ds_BHLM = slope_BHLM * (g_BHLM - total(share_BHLM * g_BHLM))

  entropy_BHLM = -w_BHLM * jnp.log(w_BHLM)
  w_BHLM = jnp.where(some_BHLM, w_BHLM, 0.0)
  apart_BHLM = (w_BHLM - share_BHLM) / (alpha_H11 - 1) ** 2
  apart_BHLM += (entropy_BHLM - share_BHLM * total(entropy_BHLM)) / (alpha_H11 - 1)
  d_alpha_H11 = jnp.sum(g_BHLM * apart_BHLM, axis=(0, 2, 3), keepdims=True)[0]
  if alpha_H11.shape[0] == 1:
    d_alpha_H11 = jnp.sum(d_alpha_H11, axis=0, keepdims=True)
  return d_alpha_H11, ds_BHLM, None


entmax.defvjp(_forward, _backward)
