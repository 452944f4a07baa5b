"""Path-integral additive group representations (GRAPE-AP). Zhang et al., 2025.

https://arxiv.org/abs/2512.07805
"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.matmul import einsum
from transformer_jax.positions.alibi import slopes
from transformer_jax.positions.base import PositionalEncoding, positions
from transformer_jax.positions.path import after
from transformer_jax.positions.rope import turn_pairs


@positions.register("grape_ap")
@dataclasses.dataclass(frozen=True)
class GrapeAP(PositionalEncoding):
  """Penalizes a score by a sum over the tokens after the key, gated by the query.

      s_ij = q_i . k_j / sqrt(K) + m_h sum over j < t <= i of ln sigmoid(p_i . R_t p_t
        / W)

  A penalty is ALiBi's slope times log sigmoid(p_i . R p_t / W), where p are projections
  of the tokens scaled to unit mean square, and R turns all pairs by as many radians as
  token t's position. The authors' code leaves the query's projection unscaled; here
  both are scaled, as in the paper.

  width   of the projections

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> text = {"order_BL": np.arange(4), "segment_BL": np.ones(4)}
  >>> zero_HLW = np.zeros((1, 4, 8))  # penalties of 1/2 ln(1/2)
  >>> tile = tj.positions.Tile(
  ...   q_LK=None, k_MK=None, pos_L=None, pos_M=None, mask_LM=None,
  ...   q_data=text | {"link_BLHW": zero_HLW}, k_data=text | {"rotated_BLHW": zero_HLW},
  ...   scale=1.0,
  ... )
  >>> full_scores = jax.jit(tj.positions.build("grape_ap").full_scores)
  >>> s_HLM = full_scores({"slope_H": np.array([0.5])}, np.zeros((1, 4, 4)), tile)
  >>> print(np.asarray(s_HLM)[0, 3].round(2))
  [-1.04 -0.69 -0.35  0.  ]
  """

  width: int = 8
  relative = False
  per_layer = True
  extrapolation = "decays"

  def __post_init__(self):
    if self.width < 2 or self.width % 2:
      raise ValueError(
        f"grape_ap turns pairs and needs an even width, not {self.width}"
      )

  def init(self, key, dims):
    shape = (dims.D, dims.H, self.width)
    return {"link_DHW": jax.random.normal(key, shape) * dims.D**-0.5}

  def constants(self, dims):
    return {"slope_H": jnp.array(slopes(dims.H))}

  def bidirectional(self):
    raise ValueError(
      "grape_ap sums penalties from the key forward to the query and has no meaning for"
      " keys in the future; use it in a decoder"
    )

  def token_data(self, params, x_BLD, q_BLHK):
    x_BLD = x_BLD.astype(jnp.float32)
    link_BLHW = einsum("BLD,DHW->BLHW", x_BLD, params["link_DHW"])
    square_BLH1 = jnp.mean(jnp.square(link_BLHW), axis=-1, keepdims=True)
    return {"link_BLHW": link_BLHW * jax.lax.rsqrt(square_BLH1 + 1e-6)}

  def accumulate(self, params, data, at):
    # The authors turn the other way round than RoPE.
    angle_BL1R = -at.pos_BL[:, :, None, None] * jnp.ones(self.width // 2)
    rotated_BLHW = turn_pairs(data["link_BLHW"], angle_BL1R, interleaved=False)
    return data | {
      "rotated_BLHW": rotated_BLHW,
      "order_BL": at.order_BL,
      "segment_BL": at.segment_BL,
    }

  def full_scores(self, params, s_HLM, tile):
    own_HLW, rotated_HMW = tile.q_data["link_BLHW"], tile.k_data["rotated_BLHW"]
    link_HLM = jnp.einsum("HLW,HMW->HLM", own_HLW, rotated_HMW) / self.width
    penalty_HLM = params["slope_H"][:, None, None] * jax.nn.log_sigmoid(link_HLM)
    passed_LM = after(tile.q_data, tile.k_data, 1)
    penalty_HLM = jnp.where(passed_LM, penalty_HLM, 0.0)
    total_HLM = jax.lax.cumsum(penalty_HLM, axis=2, reverse=True)
    return s_HLM + total_HLM - penalty_HLM  # without the key's penalty
