"""The factor on dot products. Vaswani et al., 2017.

https://arxiv.org/abs/1706.03762; none: Raffel et al., 2020,
https://arxiv.org/abs/1910.10683; 1 / K: Yang et al., 2022,
https://arxiv.org/abs/2203.03466
"""

import dataclasses

import jax.numpy as jnp

from transformer_jax.attention.variants.base import Variant, attentions
from transformer_jax.spec import SpecError


@attentions.register("scale")
@dataclasses.dataclass(frozen=True)
class Scale(Variant):
  """K ** -power times `factor`, learned by each head or not.

      s_ij = factor q_i . k_j / K^power

  `scale(0)` is T5's: no scale. `scale(1)` is muP's: products of aligned queries and
  keys grow like K. The learned factor starts at `factor` and stays above zero.

  power     0.5: the usual 1 / sqrt(K)
  factor    a further factor
  learned   whether each head learns a factor
  by_layer  layer n, from 1, divides by n, as GPT-2 may and Mistral's does,
            https://github.com/stanford-crfm/mistral

  >>> import transformer_jax as tj
  >>> [tj.attentions.build(f"scale({power})").scale({}, K=64) for power in (0, 0.5, 1)]
  [1.0, 0.125, 0.015625]
  >>> mistral = tj.attentions.build("scale(by_layer=True)")
  >>> [round(mistral.layer(n).scale({}, K=64), 3) for n in range(4)]
  [0.125, 0.062, 0.042, 0.031]
  """

  power: float = 0.5
  factor: float = 1.0
  learned: bool = False
  by_layer: bool = False

  def __post_init__(self):
    if not self.factor > 0:
      raise SpecError(f"scale: factor is {self.factor!r}; write a number above 0")

  def layer(self, n):
    if not self.by_layer:
      return self
    return dataclasses.replace(self, factor=self.factor / (n + 1), by_layer=False)

  def init(self, key, dims):
    return {"log_scale_H": jnp.zeros(dims.H)} if self.learned else {}

  def scale(self, params, K):
    fixed = self.factor * K**-self.power
    return fixed * jnp.exp(params["log_scale_H"]) if self.learned else fixed
