"""Scores that sharpen with the length of a text, by each token. Vasylenko et al., 2025.

https://arxiv.org/abs/2506.16640
"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.attention.variants.base import Variant, attentions
from transformer_jax.matmul import einsum
from transformer_jax.positions.shared.tempered import tokens_in_horizon
from transformer_jax.spec import SpecError

SOURCES = "token", "head"


@attentions.register("adaptive_scale")
@dataclasses.dataclass(frozen=True)
class AdaptiveScale(Variant):
  """Multiplies the query of n keys by delta + beta log(n + 1) ** gamma.

      s_ij = (delta + beta_i ln(n + 1)^gamma_i) q_i . k_j / sqrt(K), n = tokens of the
        text up to query i; beta_i = softplus(w . x_i), gamma_i = range tanh(u . x_i)

  Each head has its w and u. Weights are a softmax; with those of `entmax` it is
  `asentmax`. A bias of the encoding is not scaled.

  source   token: beta and gamma from each token; head: one learned number each per head
  delta    part of the factor that does not depend on the length
  range    largest absolute gamma, with source=token

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> scale = tj.attentions.build("adaptive_scale")
  >>> logits = {"beta_BLH": np.log(np.expm1(1)), "gamma_BLH": np.arctanh(0.5)}  # one
  >>> data = {name: np.full((1, 3, 1), x) for name, x in logits.items()}
  >>> at = tj.positions.coords.consecutive(1, 3)
  >>> at = at.replace(data=jax.jit(scale.accumulate)({}, data, at))
  >>> print(np.asarray(jax.jit(scale.temperature)({}, at)).ravel().round(2))
  [1.69 2.1  2.39]
  """

  source: str = "token"
  delta: float = 1.0
  range: float = 2.0

  def __post_init__(self):
    if self.source not in SOURCES:
      raise SpecError(
        f"{self.name}: source is {self.source!r}; write {' or '.join(SOURCES)}"
      )
    if not self.range > 0:
      raise SpecError(f"{self.name}: range is {self.range!r}; write a number above 0")

  def weights(self, dims):
    if self.source == "head":
      return {}
    shape = (dims.D, dims.H), 1
    return {"length_beta_DH": shape, "length_gamma_DH": shape}

  def init(self, key, dims):
    if self.source == "token":
      return {}
    beta, gamma = jax.random.split(key)
    return {
      "length_beta_H": jax.random.uniform(beta, (dims.H,), minval=0.1, maxval=1.0),
      "length_gamma_H": 0.1 * jax.random.normal(gamma, (dims.H,)),
    }

  def token_data(self, params, x_BLD, q_BLHK):
    if self.source == "head":
      return {}
    x_BLD = x_BLD.astype(jnp.float32)
    return {
      "beta_BLH": einsum("BLD,DH->BLH", x_BLD, params["length_beta_DH"]),
      "gamma_BLH": einsum("BLD,DH->BLH", x_BLD, params["length_gamma_DH"]),
    }

  def accumulate(self, params, data, at):
    return data | {"count_BL": tokens_in_horizon(at, at)[:, :, 0, 0]}

  def temperature(self, params, at):
    if self.source == "head":
      beta, gamma = params["length_beta_H"], params["length_gamma_H"]
    else:
      beta = jax.nn.softplus(at.data["beta_BLH"])
      gamma = self.range * jnp.tanh(at.data["gamma_BLH"])
    log_BL1 = jnp.log1p(at.data["count_BL"].astype(jnp.float32))[..., None]
    return (self.delta + beta * log_BL1**gamma)[..., None]
