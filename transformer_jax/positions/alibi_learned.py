"""ALiBi with learned slopes. Kazemnejad et al., 2023. https://arxiv.org/abs/2305.19466"""

import dataclasses

import jax.numpy as jnp

from transformer_jax.positions.alibi import Alibi, penalty, signed_slopes
from transformer_jax.positions.base import positions


@positions.register("alibi_learned")
@dataclasses.dataclass(frozen=True)
class AlibiLearned(Alibi):
  """Learns each head's slope and starts from those of ALiBi.

      s_ij = q_i . k_j / sqrt(K) - m_h |i - j|, m_h learned

  logarithm   learn the logarithm of the slope, as in the paper; False: the slope, used
              as 0 where it falls below
  per_layer   False: all layers share their slopes

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> bias = jax.jit(tj.positions.build("alibi_learned(logarithm=False)").bias)
  >>> print(bias({"slope_H": 0.125}, np.array([4]), np.arange(4)))
  [[-0.5   -0.375 -0.25  -0.125]]
  """

  logarithm: bool = True
  per_layer: bool = dataclasses.field(default=True, kw_only=True)

  def init(self, key, dims):
    slope_H = jnp.abs(signed_slopes(self, dims.H))
    if self.logarithm:
      return {"log_slope_H": jnp.log(slope_H)}
    return {"slope_H": slope_H}

  def constants(self, dims):
    return {"side_H": jnp.sign(signed_slopes(self, dims.H))}

  def bias(self, params, pos_L, pos_M):
    if self.logarithm:
      slope = jnp.exp(params["log_slope_H"])
    else:
      slope = jnp.maximum(params["slope_H"], 0)
    return penalty(self, slope, pos_L, pos_M)

  def side(self, params):
    return params["side_H"]
