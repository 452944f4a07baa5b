"""Adaptive-scalable entmax. Vasylenko et al., 2025.

https://arxiv.org/abs/2506.16640
"""

import dataclasses

import jax.numpy as jnp

from transformer_jax.attention.variants.adaptive_scale import AdaptiveScale
from transformer_jax.attention.variants.base import attentions
from transformer_jax.attention.variants.entmax import entmax
from transformer_jax.spec import SpecError


@attentions.register("asentmax")
@dataclasses.dataclass(frozen=True)
class ScalableEntmax(AdaptiveScale):
  """Entmax of scores whose scale grows with the length, by each token and head.

      w_i = entmax_alpha((delta + beta_i ln(n + 1)^gamma_i) q_i . k_j / sqrt(K))

  The scale is that of `adaptive_scale`, and the weights those of `entmax`: longer texts
  then need not have more keys with a weight.

  source   token: beta and gamma from each token; head: one learned number each per head
  delta    part of the factor that does not depend on the length
  range    largest absolute gamma, with source=token
  alpha    of the entmax, above 1, up to 2

  >>> import transformer_jax as tj
  >>> asentmax = tj.attentions.build("asentmax(alpha=1.75)")
  >>> asentmax.tile_local, asentmax.weights(tj.Dims(V=2, D=8, H=2, F=8, L=8))
  (False, {'length_beta_DH': ((8, 2), 1), 'length_gamma_DH': ((8, 2), 1)})
  """

  alpha: float = 1.5

  def __post_init__(self):
    super().__post_init__()
    if not (isinstance(self.alpha, (int, float)) and 1 < self.alpha <= 2):
      raise SpecError(
        f"asentmax: alpha is {self.alpha!r}; write a number above 1, up to 2, or"
        " adaptive_scale for a softmax"
      )

  def weigh(self, params, s_BHLM, mask_B1LM):
    factors = 1 / (self.alpha - 1)
    power = factors if factors in (1, 2) else None
    return entmax(jnp.full((1, 1, 1), self.alpha), s_BHLM, mask_B1LM, power)
