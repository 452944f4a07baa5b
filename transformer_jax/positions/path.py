"""PaTH attention. Yang et al., 2025. https://arxiv.org/abs/2505.16381"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.initializers import fan_in_uniform
from transformer_jax.matmul import einsum
from transformer_jax.positions.base import PositionalEncoding, Tile, positions
from transformer_jax.positions.forgetting import Forgetting, kept_between
from transformer_jax.positions.selective_rope import direction
from transformer_jax.positions.shared.short_convolution import mix, neighbours
from transformer_jax.triangular import solve_unit_lower

BLOCK = 32  # tokens whose reflections are one product, in short texts
BLOCKS = 16  # of a longer text: each is written out, so that operations can be counted


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
    low_BLW = einsum("BLD,DW->BLW", x_BLD, params["down_DW"])
    logit_BLH = einsum("BLD,DH->BLH", x_BLD, params["strength_DH"])
    strength_BLH = jax.nn.sigmoid(logit_BLH + params["strength_shift_H"])
    data = {
      "direction_BLHK": jnp.einsum("BLW,WHK->BLHK", low_BLW, params["up_WHK"]),
      "strength_BLH": 2 * strength_BLH,
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
    s_HLM += tile.scale * changes(tile)
    if self.forget:
      factor = tile.scale if self.scale_gates else 1.0
      s_HLM += factor * kept_between(tile.q_data, tile.k_data)
    return s_HLM


def changes(tile: Tile) -> jax.Array:
  """Returns what reflections add to the products of queries and keys, [H, L, M].

  Queries visit blocks of tokens from the last to the first. The UT transform, section
  3.3 of the paper, makes one product of the reflections of a block: for its own keys,
  and for the queries, which go on to the block before it.
  """
  q_HLK, (M, _) = tile.q_LK.astype(jnp.float32), tile.k_MK.shape[1:]
  w_HnCK, k_HnCK, product_HnCX = _by_blocks(tile)
  n, C = w_HnCK.shape[1:3]
  # Query i is at token t or after it.
  done_LM = jnp.pad(after(tile.q_data, tile.k_data, 1), ((0, 0), (0, n * C - M)))
  moved_HLK, parts = jnp.zeros_like(q_HLK), []  # by what a query has changed so far
  for i in reversed(range(n)):
    met_HLC = (q_HLK + moved_HLK) @ jnp.swapaxes(w_HnCK[:, i], 1, 2)
    met_HLC = jnp.where(done_LM[:, i * C : (i + 1) * C], met_HLC, 0.0)
    taken_HLX = met_HLC @ product_HnCX[:, i]
    parts.append(moved_HLK @ jnp.swapaxes(k_HnCK[:, i], 1, 2) - taken_HLX[..., :C])
    moved_HLK -= taken_HLX[..., C:]
  return jnp.concatenate(parts[::-1], axis=-1)[..., :M]


def _by_blocks(tile):
  """Returns directions, keys and products of reflections, by blocks of tokens.

  The last, [H, n, C, C + K], give from a query's products with a block's directions
  what is taken from its products with the keys, and from the query itself.
  """
  M, K = tile.k_MK.shape[1:]
  C = BLOCK
  # Queries of K features are written once for each block: it has as many tokens.
  while C * BLOCKS < M or C < min(K, M):
    C *= 2

  def cut(x):
    """Cuts the axis of tokens, the last but one, into blocks, [..., n, C, K]."""
    x = jnp.pad(x, [(0, 0)] * (x.ndim - 2) + [(0, -M % C), (0, 0)])
    return x.reshape(*x.shape[:-2], -1, C, x.shape[-1])

  w_HnCK, k_HnCK = map(cut, (tile.k_data["direction_BLHK"], tile.k_MK))
  k_HnCK = k_HnCK.astype(jnp.float32)
  b_HnC1 = cut(tile.k_data["strength_BLH"][..., None])
  text = {name: tile.k_data[name] for name in ("order_BL", "segment_BL")}
  text_nC = {name: cut(x[:, None])[..., 0] for name, x in text.items()}
  after_nCC, bw_HnCK = jax.vmap(after)(text_nC, text_nC), b_HnC1 * w_HnCK

  def met(x_HnCK):  # by the reflections of later tokens of its block
    product_HnCC = bw_HnCK @ jnp.swapaxes(x_HnCK, -1, -2)
    return jnp.where(after_nCC, product_HnCC, 0.0)

  # Orders grow with the place, so products of reflections form a lower triangle.
  taken_HnCX = jnp.concatenate([met(k_HnCK), bw_HnCK], axis=-1)
  return w_HnCK, k_HnCK, solve_unit_lower(met(w_HnCK), taken_HnCX)


def after(late, early, n=0):
  """Returns True where a token comes after another one of its text, bool [L, M].

  late, early   token data with order and segment, [L] and [M]
  n             1: a token also comes after itself
  """
  same_LM = late["segment_BL"][:, None] == early["segment_BL"][None, :]
  real_M = early["order_BL"] >= 0
  later_LM = early["order_BL"][None, :] < late["order_BL"][:, None] + n
  return same_LM & later_LM & real_M[None, :]
