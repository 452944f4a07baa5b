"""Wall attention: forget gates of each feature. Averbuch and Pai, 2026.

https://github.com/fla-org/flash-linear-attention/tree/main/fla/ops/wall_attn
"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.devices import platform
from transformer_jax.matmul import einsum
from transformer_jax.positions.base import PositionalEncoding, positions
from transformer_jax.positions.shared.decayed_products import decayed_products
from transformer_jax.positions.shared.relative import READY
from transformer_jax.positions.shared.sums import of_tokens, running
from transformer_jax.spec import SpecError


@positions.register("wall")
@dataclasses.dataclass(frozen=True)
class Wall(PositionalEncoding):
  """Multiplies each feature of a product by the gates of the tokens between.

      s_ij = sum over n of q_in k_jn prod over j < t <= i of f_tn / sqrt(K),
        f_t = sigmoid(W x_t + b)

  Each head has a gate for each of its features, as gated linear attention has; equal
  gates of a head's features would shrink its scores with distance. `dense` and kernels
  compute arrays of L x M x K by that definition, tiles on a CPU products of blocks.

  memory   tokens after which a feature's gates start by leaving 1/e of it

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> sums_LK = np.log([[0.5, 1.0], [0.25, 1.0]])  # the first feature is halved
  >>> data = {"kept_BLHK": sums_LK, "kept_low_BLHK": 0 * sums_LK}
  >>> tile = tj.positions.Tile(
  ...   q_LK=np.ones((2, 2)), k_MK=np.ones((2, 2)), pos_L=None, pos_M=None,
  ...   mask_LM=np.tri(2, dtype=bool), q_data=data, k_data=data, scale=1.0,
  ... )
  >>> print(jax.jit(tj.positions.build("wall").score)({}, np.full((2, 2), 2.0), tile))
  [[2.  2. ]
   [1.5 2. ]]
  """

  memory: float = 256.0
  per_layer = True
  extrapolation = "decays"

  def __post_init__(self):
    if not self.memory > 0:
      raise SpecError(f"wall: memory is {self.memory!r}; write a number of tokens")

  def init(self, key, dims):
    shape = (dims.D, dims.H, dims.K)
    start = -jnp.log(jnp.expm1(1 / self.memory))
    return {
      "forget_DHK": 0.02 * jax.random.normal(key, shape),
      "forget_shift_HK": jnp.full(shape[1:], start),
    }

  def bidirectional(self):
    raise ValueError(
      "wall multiplies gates from the key forward to the query and has no meaning for"
      " keys in the future; use it in a decoder"
    )

  def token_data(self, params, x_BLD, q_BLHK):
    x_BLD = x_BLD.astype(jnp.float32)
    logit_BLHK = einsum("BLD,DHK->BLHK", x_BLD, params["forget_DHK"])
    return {"kept_BLHK": jax.nn.log_sigmoid(logit_BLHK + params["forget_shift_HK"])}

  def accumulate(self, params, data, at):
    # Only differences within a text count, so sums may run on through other texts.
    high_BLHK, low_BLHK = running(of_tokens(data["kept_BLHK"], at))
    place_BL = jnp.arange(at.order_BL.shape[1], dtype=jnp.float32)[None]
    sums = {"kept_BLHK": high_BLHK, "kept_low_BLHK": low_BLHK}
    return sums | {"place_BL": place_BL}

  def prepare(self, params, q_at, k_at):
    # Many small products, for a CPU: kernels of accelerators compute the definition.
    return params | READY if platform() == "cpu" else params, q_at, k_at

  def score(self, params, s_LM, tile):
    q_LK, k_MK = tile.q_LK.astype(jnp.float32), tile.k_MK.astype(jnp.float32)
    if "ready" in params:
      (q_sums, q_place), (k_sums, k_place) = map(_sums, (tile.q_data, tile.k_data))
      start = (q_place - k_place).astype(jnp.int32)
      decayed_LM = decayed_products(q_LK, k_MK, q_sums, k_sums, start)
      return s_LM + tile.scale * (decayed_LM - q_LK @ k_MK.T)

    def apart(name):
      return tile.q_data[name][:, None] - tile.k_data[name][None]

    # Gates only take away. Later keys, which are masked, would overflow.
    log_LMK = jnp.minimum(apart("kept_BLHK") + apart("kept_low_BLHK"), 0.0)
    lost_LM = jnp.einsum("LK,MK,LMK->LM", q_LK, k_MK, jnp.expm1(log_LMK))
    return s_LM + tile.scale * lost_LM


def _sums(data):
  """Returns running sums of log gates, high and low, and the first token's index."""
  return (data["kept_BLHK"], data["kept_low_BLHK"]), data["place_BL"][0]
