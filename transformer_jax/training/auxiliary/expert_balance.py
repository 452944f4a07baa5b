"""Load balance of experts. Fedus et al., 2021. https://arxiv.org/abs/2101.03961"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.training.auxiliary.base import AuxiliaryLoss, auxiliary_losses
from transformer_jax.training.auxiliary.training_pass import stack_of

WEIGHTS, SHARES = "expert_weights", "expert_shares"


@auxiliary_losses.register("expert_balance")
@dataclasses.dataclass(frozen=True)
class ExpertBalance(AuxiliaryLoss):
  """Draws tokens to experts that few of them choose.

      loss = X sum_x f_x P_x

  f_x is the share of tokens that choose expert x of X, P_x the mean of its share of a
  token's scores. The mean over layers. Where all experts are chosen alike it is the
  number of experts of a token. No gradient reaches f.

  weight   of the loss; Switch Transformer's is 0.01

  >>> balance = auxiliary_losses.build("expert_balance")
  >>> balance.places, balance.weight
  (('expert_weights', 'expert_shares'), 0.01)
  """

  weight: float = 0.01

  places = (WEIGHTS, SHARES)
  whole_batch = True

  def loss(self, arrays):
    found = arrays.captured[WEIGHTS]
    if not found:
      raise ValueError(
        "the model has no layer of experts; write"
        " model.feedforward_kind='experts(8, 2)', or leave the loss out"
      )
    return jnp.mean(jnp.stack([self._layer(arrays, path) for path in found]))

  def _layer(self, arrays, path):
    """Returns the loss of one layer."""

    def mean_X(x_BLX):
      each = jax.vmap(lambda x_BL: arrays.mean(x_BL, stack_of(path)), in_axes=-1)
      return each(x_BLX)

    chosen_X = mean_X((arrays.captured[WEIGHTS][path] > 0).astype(jnp.float32))
    share_X = mean_X(arrays.captured[SHARES][path])
    return len(share_X) * jnp.sum(chosen_X * share_X)
