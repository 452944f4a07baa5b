"""PaTH attention. Yang et al., 2025. https://arxiv.org/abs/2505.16381"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from transformer_jax.initializers import fan_in_uniform
from transformer_jax.positions.base import PositionalEncoding, positions
from transformer_jax.positions.forgetting import Forgetting, kept_between
from transformer_jax.positions.selective_rope import direction
from transformer_jax.positions.shared.short_convolution import mix, neighbours


@positions.register("path")
@dataclasses.dataclass(frozen=True)
class Path(PositionalEncoding):
  """Reflects each key by every token after it, up to the query.

      s_ij = q_i^T H_i H_(i-1) ... H_(j+1) k_j / sqrt(K), H_t = I - b_t w_t w_t^T

  Token t has a direction w and a strength b between 0 and 2 in each head, and applies
  I - b w w^T to all keys before it. Keys ahead of a query stay as they are.

  rank     of the projection that makes directions
  width    number of tokens that a direction mixes
  forget   adds the bias of `forgetting` (PaTH-FoX)
  scale_gates   multiplies this bias by 1 / sqrt(K) too, as flash-linear-attention does

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> text = {"order_BL": np.arange(3), "segment_BL": np.ones(3)}
  >>> x_HLK = np.tile([1.0, 0], (1, 3, 1))
  >>> w_HMK = np.array([[[0.0, 1], [0, 1], [1, 0]]])  # the last: along the keys
  >>> tile = tj.positions.Tile(
  ...   q_LK=x_HLK, k_MK=x_HLK, pos_L=None, pos_M=None, mask_LM=None, scale=1.0,
  ...   q_data=text,
  ...   k_data=text | {"direction_BLHK": w_HMK, "strength_BLH": np.ones((1, 3))},
  ... )
  >>> full_scores = jax.jit(tj.positions.build("path").full_scores)
  >>> print(full_scores({}, np.ones((1, 3, 3)), tile))
  [[[1. 1. 1.]
    [1. 1. 1.]
    [0. 0. 1.]]]
  """

  rank: int = 32
  width: int = 3
  forget: bool = False
  scale_gates: bool = False
  per_layer = True

  def init(self, key, dims):
    keys = jax.random.split(key, 5)

    def normal(key, *shape):
      return jax.random.normal(key, shape) * shape[0] ** -0.5

    params = {
      "down_DW": normal(keys[0], dims.D, self.rank),
      "up_WHK": normal(keys[1], self.rank, dims.H, dims.K),
      "mix_HKN": fan_in_uniform(keys[2], (dims.H, dims.K, self.width), self.width),
      "strength_DH": 0.02 * jax.random.normal(keys[3], (dims.D, dims.H)),
      "strength_shift_H": jnp.zeros(dims.H),
    }
    return params | (Forgetting().init(keys[4], dims) if self.forget else {})

  def bidirectional(self):
    raise ValueError(
      "path reflects keys by the tokens up to the query and has no meaning for keys in"
      " the future; use it in a decoder"
    )

  def token_data(self, params, x_BLD, q_BLHK):
    x_BLD = x_BLD.astype(jnp.float32)
    low_BLW = x_BLD @ params["down_DW"]
    logit_BLH = x_BLD @ params["strength_DH"] + params["strength_shift_H"]
    data = {
      "direction_BLHK": jnp.einsum("BLW,WHK->BLHK", low_BLW, params["up_WHK"]),
      "strength_BLH": 2 * jax.nn.sigmoid(logit_BLH),
    }
    more = Forgetting().token_data(params, x_BLD, q_BLHK) if self.forget else {}
    return data | more

  def accumulate(self, params, data, at):
    near = neighbours(at, self.width)
    mixed_BLHK = mix(data["direction_BLHK"], params["mix_HKN"], near)
    data = data | {"direction_BLHK": direction(jax.nn.silu(mixed_BLHK))}
    if self.forget:
      data |= Forgetting().accumulate(params, {"kept_BLH": data["kept_BLH"]}, at)
    return data | {"order_BL": at.order_BL, "segment_BL": at.segment_BL}

  def full_scores(self, params, s_HLM, tile):
    """Applies all reflections at once: the UT transform, section 3.3 of the paper."""
    w_HMK, k = tile.k_data["direction_BLHK"], tile.k_MK.astype(jnp.float32)
    b_HT1 = tile.k_data["strength_BLH"][..., None]
    dot = functools.partial(jnp.einsum, "HLK,HMK->HLM")
    after_TM = after(tile.k_data, tile.k_data)
    done_LT = after(tile.q_data, tile.k_data, 1)  # query i is at token t or after it
    met_HTM = jnp.where(after_TM, b_HT1 * dot(w_HMK, w_HMK), 0.0)
    met_HTM += jnp.eye(met_HTM.shape[-1])
    asked_HLT = jnp.where(done_LT, dot(tile.q_LK.astype(jnp.float32), w_HMK), 0.0)
    # Orders grow with the place, so products of reflections form a lower triangle.
    solved_HTL = solve_triangular(
      met_HTM, jnp.swapaxes(asked_HLT, 1, 2), trans=1, lower=True, unit_diagonal=True
    )
    hit_HTM = jnp.where(after_TM, b_HT1 * dot(w_HMK, k), 0.0)
    s_HLM -= tile.scale * jnp.einsum("HTL,HTM->HLM", solved_HTL, hit_HTM)
    if self.forget:
      factor = tile.scale if self.scale_gates else 1.0
      s_HLM += factor * kept_between(tile.q_data, tile.k_data)
    return s_HLM


def after(late, early, n=0):
  """Returns True where a token comes after another one of its text, bool [L, M].

  late, early   token data with order and segment, [L] and [M]
  n             1: a token also comes after itself
  """
  same_LM = late["segment_BL"][:, None] == early["segment_BL"][None, :]
  real_M = early["order_BL"] >= 0
  later_LM = early["order_BL"][None, :] < late["order_BL"][:, None] + n
  return same_LM & later_LM & real_M[None, :]
