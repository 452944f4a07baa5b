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

from transformer_jax.attention.variants.base import Variant, attentions
from transformer_jax.spec import SpecError

HALVINGS = 30  # of an interval of length 1: well below float32's resolution


@attentions.register("entmax")
@dataclasses.dataclass(frozen=True)
class Entmax(Variant):
  """Weights max(0, (alpha - 1) score - t) ** (1 / (alpha - 1)), whose sum is one.

      w_ij = max(0, (alpha - 1) s_ij - t_i)^(1 / (alpha - 1)), sum over j of w_ij = 1

  alpha     above 1, the limit of softmax, up to 2, which is `sparsemax`
  learned   each head learns an alpha between 1 and 2, from `alpha` on

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> s_BHLM = np.array([[[[2.0, 1.5, 1.0, -1.0]]]])
  >>> for alpha in 1.1, 1.5, 2.0:
  ...   weigh = jax.jit(tj.attentions.build(f"entmax({alpha})").weigh)
  ...   print(alpha, np.asarray(weigh({}, s_BHLM, s_BHLM < 9)).ravel().round(2))
  1.1 [0.52 0.3  0.17 0.01]
  1.5 [0.62 0.29 0.08 0.  ]
  2.0 [0.75 0.25 0.   0.  ]
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

  def weigh(self, params, s_BHLM, mask_B1LM):
    if self.learned:
      # Not through alpha: float32 holds 1 + 1e-9 as 1.
      beta_H11 = jax.nn.sigmoid(params["alpha_logit_H"])[:, None, None]
      return weights(beta_H11, s_BHLM, mask_B1LM)
    alpha_111 = jnp.full((1, 1, 1), self.alpha)
    return entmax(alpha_111, s_BHLM, mask_B1LM, power(self))


def power(variant: Entmax) -> float | None:
  """Returns 1 / (alpha - 1) if it is 1 or 2, so that weights are products, or None."""
  factors = 1 / (variant.alpha - 1)
  return factors if not variant.learned and factors in (1, 2) else None


def entmax(
  alpha_H11: jax.Array,
  s_BHLM: jax.Array,
  mask_B1LM: jax.Array,
  power: float | None = None,
) -> jax.Array:
  """Returns weights of unmasked keys; a row without any is zero.

  power   1 / (alpha - 1) if it is 1 or 2 and a constant of the program
  """
  return weights(alpha_H11 - 1, s_BHLM, mask_B1LM, power)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def weights(
  beta_H11: jax.Array,
  s_BHLM: jax.Array,
  mask_B1LM: jax.Array,
  power: float | None = None,
) -> jax.Array:
  """Returns the weights of alpha = 1 + beta; for beta = 0, softmax weights.

  The threshold is computed by bisection.
  """
  top_BHL1 = jnp.max(s_BHLM, axis=-1, keepdims=True, where=mask_B1LM, initial=-1e30)
  below_BHLM = jnp.where(mask_B1LM, s_BHLM - top_BHL1, 0.0)  # of the best key 0
  if power is None:
    weigh, low_BHL1, high_BHL1 = _by_logarithm(beta_H11, below_BHLM, mask_B1LM)
  else:
    weigh, low_BHL1, high_BHL1 = _by_product(beta_H11, below_BHLM, mask_B1LM, power)

  def halve(_, ends):
    low, high = ends
    middle = (low + high) / 2
    enough = jnp.sum(weigh(middle), axis=-1, keepdims=True) >= 1
    return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

  low_BHL1, _ = jax.lax.fori_loop(0, HALVINGS, halve, (low_BHL1, high_BHL1))
  w_BHLM = weigh(low_BHL1)
  return w_BHLM / jnp.maximum(jnp.sum(w_BHLM, axis=-1, keepdims=True), 1e-30)


def _by_product(beta_H11, below_BHLM, mask_B1LM, power):
  """Returns (weights as a function of the threshold, its lower and upper bound).

  The threshold is one of beta times scores. Arguments as in `weights`, with scores
  relative to the best one.
  """
  # A key at -1 gets nothing, whatever the others are.
  x_BHLM = jnp.where(mask_B1LM, beta_H11 * below_BHLM, -1.0)
  zero_BHL1 = jnp.zeros_like(x_BHLM[..., :1])

  def weigh(t_BHL1):
    return jnp.where(mask_B1LM, jnp.maximum(x_BHLM - t_BHL1, 0.0) ** power, 0.0)

  return weigh, zero_BHL1 - 1, zero_BHL1


def _by_logarithm(beta_H11, below_BHLM, mask_B1LM):
  """Returns (weights as a function of the threshold, its lower and upper bound).

  The threshold is one of scores. (1 + beta x) ** (1 / beta) is computed as
  exp(log1p(beta x) / beta), which tends to exp(x). The threshold is between the best
  score and the one at which the weights of n equal scores add up to one, where x = (1 -
  n ** -beta) / beta: for beta = 0 that is ln n.
  """
  # Below, both logarithms are their arguments, and these would be too small a number.
  beta_H11 = jnp.maximum(beta_H11, 1e-12)
  keys_B1L1 = jnp.maximum(jnp.sum(mask_B1LM, axis=-1, keepdims=True), 1)
  last_BHL1 = -jnp.expm1(-beta_H11 * jnp.log(keys_B1L1.astype(jnp.float32))) / beta_H11
  zero_BHL1 = jnp.zeros_like(below_BHLM[..., :1])

  def weigh(t_BHL1):
    x_BHLM = jnp.maximum(beta_H11 * (below_BHLM - t_BHL1), -1.0)
    return jnp.where(mask_B1LM, jnp.exp(jnp.log1p(x_BHLM) / beta_H11), 0.0)

  return weigh, zero_BHL1, zero_BHL1 + last_BHL1


def _forward(beta_H11, s_BHLM, mask_B1LM, power):
  w_BHLM = weights(beta_H11, s_BHLM, mask_B1LM, power)
  return w_BHLM, (beta_H11, w_BHLM)


def _backward(power, residuals, g_BHLM):
  """Returns gradients by the Jacobians of both papers, over keys with a weight."""
  beta_H11, w_BHLM = residuals
  some_BHLM = w_BHLM > 0
  w_BHLM = jnp.where(some_BHLM, w_BHLM, 1.0)

  def total(x_BHLM):
    return jnp.sum(x_BHLM, axis=-1, keepdims=True)

  slope_BHLM = jnp.where(some_BHLM, w_BHLM ** (1 - beta_H11), 0.0)
  share_BHLM = slope_BHLM / jnp.maximum(total(slope_BHLM), 1e-30)
  ds_BHLM = slope_BHLM * (g_BHLM - total(share_BHLM * g_BHLM))

  by_beta_BHLM = _by_beta(beta_H11, w_BHLM, some_BHLM)
  d_beta_H11 = jnp.sum(g_BHLM * by_beta_BHLM, axis=(0, 2, 3), keepdims=True)[0]
  if beta_H11.shape[0] == 1:
    d_beta_H11 = jnp.sum(d_beta_H11, axis=0, keepdims=True)
  return d_beta_H11, ds_BHLM, None


def _by_beta(beta_H11, w_BHLM, some_BHLM):
  """Returns the derivative by beta of each weight that is not zero.

  In the formula of Correia et al., terms as large as 1 / beta ** 2 cancel. With l =
  ln w and y = -beta l, and means over keys by their weights, it is

    w (mean(l^2 f(y)) (1 + y) - l^2 f(y) (1 + mean(y))) / mean(exp(y))

  where f(y) = (exp(y) - 1 - y) / y^2, and for beta = 0: w (mean(l^2) - l^2) / 2.
  """
  l_BHLM = jnp.log(w_BHLM)
  y_BHLM = -beta_H11 * l_BHLM

  def mean(x_BHLM):
    return jnp.sum(jnp.where(some_BHLM, w_BHLM * x_BHLM, 0.0), axis=-1, keepdims=True)

  bend_BHLM = jnp.square(l_BHLM) * _bend(y_BHLM)
  apart_BHLM = mean(bend_BHLM) * (1 + y_BHLM) - bend_BHLM * (1 + mean(y_BHLM))
  apart_BHLM /= jnp.maximum(mean(jnp.exp(y_BHLM)), 1.0)
  return jnp.where(some_BHLM, w_BHLM * apart_BHLM, 0.0)


def _bend(y: jax.Array) -> jax.Array:
  """Returns (exp(y) - 1 - y) / y^2 for y of at least 0; near 0 by its series."""
  near = y < 0.3
  far_y = jnp.where(near, 1.0, y)
  series = sum(y**n / math.factorial(n + 2) for n in range(6))
  return jnp.where(near, series, (jnp.expm1(far_y) - far_y) / jnp.square(far_y))


weights.defvjp(_forward, _backward)
