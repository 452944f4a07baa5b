"""Forget gates of each pair of tokens. Lin et al., 2025.

https://arxiv.org/abs/2503.02130. Theirs is one gate of each token: `forgetting`. This
is x-transformers' `PerRowDataDependentAlibi`.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from transformer_jax.matmul import einsum
from transformer_jax.positions.base import PositionalEncoding, positions
from transformer_jax.spec import SpecError


@positions.register("forgetting_per_row")
@dataclasses.dataclass(frozen=True)
class ForgettingPerRow(PositionalEncoding):
  """Adds a bias of cumulative log forget gates, one for each query and token.

      s_ij = q_i . k_j / sqrt(K) + sum over j <= t < i of ln sigmoid(a_i . b_t /
        sqrt(W))

  The gate of query i and token t is sigmoid(a_i . b_t / sqrt(width)), with small
  projections a and b in each head. The bias of key j is the sum of log gates from j up
  to the token before the query.

  width   of the projections

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> tile = tj.positions.Tile(
  ...   q_LK=None, k_MK=None, pos_L=None, pos_M=None, mask_LM=np.ones((1, 4), bool),
  ...   q_data={"gate_query_BLHW": np.zeros((1, 1, 8))},
  ...   k_data={"gate_key_BLHW": np.zeros((1, 4, 8))}, scale=1.0,
  ... )  # gates of 1/2
  >>> full_scores = jax.jit(tj.positions.build("forgetting_per_row").full_scores)
  >>> print(np.asarray(full_scores({}, np.zeros((1, 1, 4)), tile)).round(2))
  [[[-2.08 -1.39 -0.69  0.  ]]]
  """

  width: int = 8
  per_layer = True
  extrapolation = "decays"

  def __post_init__(self):
    if not (isinstance(self.width, int) and self.width > 0):
      raise SpecError(
        f"forgetting_per_row: width is {self.width!r}; write a whole number above 0"
      )

  def init(self, key, dims):
    names, shape = ("forget_query_DHW", "forget_key_DHW"), (dims.D, dims.H, self.width)

    def normal(key):
      return jax.random.normal(key, shape) * dims.D**-0.5

    return {n: normal(k) for n, k in zip(names, jax.random.split(key), strict=True)}

  def bidirectional(self):
    raise ValueError(
      "forgetting_per_row sums gates from the key forward to the query and has no"
      " meaning for keys in the future; use it in a decoder"
    )

  def token_data(self, params, x_BLD, q_BLHK):
    x_BLD = x_BLD.astype(jnp.float32)
    project = functools.partial(einsum, "BLD,DHW->BLHW", x_BLD)
    return {
      "gate_query_BLHW": project(params["forget_query_DHW"]),
      "gate_key_BLHW": project(params["forget_key_DHW"]),
    }

  def full_scores(self, params, s_HLM, tile):
    a_HLW, b_HMW = tile.q_data["gate_query_BLHW"], tile.k_data["gate_key_BLHW"]
    logits_HLM = jnp.einsum("HLW,HMW->HLM", a_HLW, b_HMW) * self.width**-0.5
    mask_LM = tile.mask_LM
    count_LM = mask_LM.astype(jnp.int32)
    later_LM = jax.lax.cumsum(count_LM, axis=count_LM.ndim - 1, reverse=True)
    before_LM = mask_LM & (later_LM > 1)  # masked keys have no gates
    kept_HLM = jnp.where(before_LM, jax.nn.log_sigmoid(logits_HLM), 0.0)
    return s_HLM + jax.lax.cumsum(kept_HLM, axis=2, reverse=True)
