"""Cosines between queries and keys. Liu et al., 2022 (Swin V2).

https://arxiv.org/abs/2111.09883
"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.attention.variants.base import Variant, attentions
from transformer_jax.spec import SpecError

LEAST = 0.01  # the lowest temperature


@attentions.register("cosine")
@dataclasses.dataclass(frozen=True)
class Cosine(Variant):
  """Cosine scores divided by a learned temperature of each head.

      s_ij = cos(q_i, k_j) / tau_h

  `cosine(0.1, learned=False)` is x-transformers' fixed factor of 10. After an encoding
  that rotates vectors without changing their length, scores are still cosines.

  tau       initial temperature, or the fixed one; it never falls below 0.01
  learned   each head learns a temperature

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> cosine = tj.attentions.build("cosine(tau=0.1, learned=False)")
  >>> q_BLHK, k_BMGK = np.array([[[[3.0, 4.0]]]]), np.array([[[[0.0, 9.0]]]])
  >>> q, k = jax.jit(cosine.condition)({}, q_BLHK, k_BMGK)
  >>> print(np.asarray(q).round(2), cosine.scale({}, K=64))
  [[[[0.6 0.8]]]] 10.0
  """

  tau: float = 0.1
  learned: bool = True

  def __post_init__(self):
    if not self.tau >= LEAST:
      raise SpecError(f"cosine: tau is {self.tau!r}; write a number from {LEAST} up")

  def init(self, key, dims):
    log_tau = jnp.log(jnp.asarray(self.tau, jnp.float32))
    return {"log_tau_H": jnp.full(dims.H, log_tau)} if self.learned else {}

  def condition(self, params, q_BLHK, k_BMGK):
    return unit(q_BLHK), unit(k_BMGK)

  def scale(self, params, K):
    if not self.learned:
      return 1 / self.tau
    return 1 / jnp.maximum(jnp.exp(params["log_tau_H"]), LEAST)


def unit(x_BLHK: jax.Array) -> jax.Array:
  """Returns vectors of length one; a zero vector stays zero."""
  x = x_BLHK.astype(jnp.float32)
  square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
  return (x * jax.lax.rsqrt(square + 1e-12)).astype(x_BLHK.dtype)
