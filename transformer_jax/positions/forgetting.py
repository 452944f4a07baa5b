"""Forgetting Transformer. Lin et al., 2025. https://arxiv.org/abs/2503.02130"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.positions.base import PositionalEncoding, positions


@positions.register("forgetting")
@dataclasses.dataclass(frozen=True)
class Forgetting(PositionalEncoding):
  """Lets each token say how much of the past every head forgets.

  The bias is the sum of log forget gates after the key up to the query; a constant gate
  is ALiBi.
  """

  per_layer = True

  def init(self, key, dims):
    weight_DH = 0.02 * jax.random.normal(key, (dims.D, dims.H))
    return {"forget_DH": weight_DH, "forget_shift_H": jnp.zeros(dims.H)}

  def bidirectional(self):
    raise ValueError(
      "forgetting sums gates from the key forward to the query and has no meaning for"
      " keys in the future; use it in a decoder"
    )

  def token_data(self, params, x_BLD, q_BLHK):
    logits_BLH = x_BLD.astype(jnp.float32) @ params["forget_DH"]
    return {"kept_BLH": jax.nn.log_sigmoid(logits_BLH + params["forget_shift_H"])}

  def accumulate(self, params, data, at):
    # Only differences within a text count, so sums may run on through other texts.
    return {"kept_BLH": jnp.cumsum(data["kept_BLH"], axis=1)}

  def score(self, params, s_LM, tile):
    return s_LM + tile.q_data["kept_BLH"][:, None] - tile.k_data["kept_BLH"][None, :]
