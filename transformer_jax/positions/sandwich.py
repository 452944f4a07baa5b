"""Sandwich. Chi et al., 2023. https://arxiv.org/abs/2212.10356"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.positions.base import PositionalEncoding, positions
from transformer_jax.spec import SpecError


@positions.register("sandwich")
@dataclasses.dataclass(frozen=True)
class Sandwich(PositionalEncoding):
  """Adds the product of the two positions' sinusoids, less so in later heads.

      s_ij = q_i . k_j / sqrt(K) + H / (8 h) p_i . p_j, p sinusoids, h = 1 ... H

  Nothing is learned, and past and future are alike.

  width   of the sinusoids, independent of the model's

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> bias = jax.jit(tj.positions.build("sandwich").bias)
  >>> b_LM = bias({"shrink_H": 8.0}, np.array([1000]), np.array([0, 900, 990, 1000]))
  >>> print(np.asarray(b_LM).round(1))
  [[1.3 3.8 5.4 8. ]]
  """

  width: int = 128
  extrapolation = "decays"

  def __post_init__(self):
    if self.width < 2 or self.width % 2:
      raise SpecError(f"sandwich needs an even width of at least 2, not {self.width}")

  def constants(self, dims):
    return {"shrink_H": 8 * jnp.arange(1, dims.H + 1) / dims.H}

  def bias(self, params, pos_L, pos_M):
    distance_LM = (pos_L[:, None] - pos_M[None, :]).astype(jnp.float32)
    frequency_R = 10_000 ** (-2 * jnp.arange(self.width // 2) / self.width)

    # Two sinusoids meet in the cosine of their difference, which is exact anywhere in
    # the text; one frequency at a time, because all at once would be [L, M, R].
    def add(m, sum_LM):
      return sum_LM + jnp.cos(distance_LM * frequency_R[m])

    product_LM = jax.lax.fori_loop(0, self.width // 2, add, jnp.zeros_like(distance_LM))
    return product_LM / params["shrink_H"]
