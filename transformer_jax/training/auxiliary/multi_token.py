"""Multi-token prediction. Gloeckle et al., 2024. https://arxiv.org/abs/2404.19737"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.matmul import einsum
from transformer_jax.spec import SpecError
from transformer_jax.training.auxiliary.base import (
  HIDDEN,
  AuxiliaryLoss,
  auxiliary_losses,
)
from transformer_jax.training.auxiliary.training_pass import TARGETS
from transformer_jax.training.loss import chunked_cross_entropy


@auxiliary_losses.register("multi_token")
@dataclasses.dataclass(frozen=True)
class MultiTokenPrediction(AuxiliaryLoss):
  """Further heads predict the tokens after the next one, as many as `tokens` in all.

      loss = sum_k -log p_k(target k places later),   k = 1 .. tokens - 1,
        logits_k = (x + x W_k) output^T

  The mean over targets. A later target counts where it is one and in the same text. The
  heads are linear, of the paper's alternatives, and start at W = 0; the paper's own are
  Transformer layers. They share the output projection, and only training has them.

  tokens   predicted at each place, the next one included: 4 in the paper
  weight   of the loss: 1 in the paper; 0.3 with tokens=2 in DeepSeek-V3,
           https://arxiv.org/abs/2412.19437

  >>> loss = auxiliary_losses.build("multi_token(tokens=3)")
  >>> {name: x.shape for name, x in loss.init(jax.random.key(0), D=8).items()}
  {'future_NDD': (2, 8, 8)}
  """

  tokens: int = 4
  weight: float = 1.0

  places = (HIDDEN,)
  causal = True

  def __post_init__(self):
    if self.tokens < 2:
      raise SpecError(
        f"multi_token: tokens is {self.tokens}; the next token is predicted anyway, so"
        " write 2 or more"
      )

  def init(self, key, D):
    return {"future_NDD": jnp.zeros((self.tokens - 1, D, D))}

  def loss(self, arrays):
    hidden = arrays.captured[HIDDEN]["output"]
    future_NDD = arrays.params["future_NDD"]
    count, total = arrays.counts[TARGETS], 0.0
    for n in range(self.tokens - 1):
      target_BL, weight_BL = later(arrays.batch, n + 1)
      x_BLD = hidden.x_BLD + einsum("BLD,DE->BLE", hidden.x_BLD, future_NDD[n])
      sum_, _ = chunked_cross_entropy(
        x_BLD, hidden.output_VD, target_BL, weight_BL, 0.0, hidden.chunks
      )
      total += sum_
    return total / jnp.where(count > 0, count, 1)


def later(batch, k: int) -> tuple[jax.Array, jax.Array]:
  """Returns the targets k places later, and their weights, 0 where there is none.

  A place has the weight of its own target, if the later one counts and is of its text.
  """
  L = batch.target_BL.shape[1]
  place_L = jnp.arange(L)

  def move(x_BL):
    return jnp.roll(x_BL, -k, axis=1)

  segment_BL = batch.at.segment_BL
  same_BL = (move(segment_BL) == segment_BL) & (place_L < L - k)
  counts_BL = same_BL & (move(batch.weight_BL) > 0)
  return move(batch.target_BL), jnp.where(counts_BL, batch.weight_BL, 0.0)
