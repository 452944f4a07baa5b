"""Z-loss of the output logits. Chowdhery et al., 2022. https://arxiv.org/abs/2204.02311

Also Zoph et al., 2022, of routers. https://arxiv.org/abs/2202.08906
"""

import dataclasses

import jax.numpy as jnp

from transformer_jax.training.auxiliary.base import (
  LOG_Z,
  AuxiliaryLoss,
  auxiliary_losses,
)
from transformer_jax.training.auxiliary.training_pass import TARGETS


@auxiliary_losses.register("z_loss")
@dataclasses.dataclass(frozen=True)
class ZLoss(AuxiliaryLoss):
  """The softmax's normalizer is drawn to 1, which keeps logits from drifting.

      loss = log(Z)^2,    Z = sum_v exp(logit_v)

  The mean over targets, by their weights. PaLM has a weight of 1e-4; ST-MoE, with
  1e-3, applies it to the logits of its routers.

  weight   of the loss

  >>> import jax
  >>> from transformer_jax.training.loss import chunked_log_z
  >>> logits_BLD, identity_VD = jnp.log(jnp.array([[[1.0, 2.0]]])), jnp.eye(2)
  >>> float(jnp.exp(chunked_log_z(logits_BLD, identity_VD)).item().__round__(3))
  3.0
  """

  weight: float = 1e-4

  places = (LOG_Z,)

  def loss(self, arrays):
    log_z_BL = arrays.captured[LOG_Z]["output"]
    return arrays.mean(jnp.square(log_z_BL), TARGETS)
