"""Entropy of attention weights. Zhai et al., 2023. https://arxiv.org/abs/2303.06296

As a loss: Attanasio et al., 2022. https://arxiv.org/abs/2203.09192
"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.training.auxiliary.base import (
  AttentionLoss,
  Where,
  auxiliary_losses,
)


@auxiliary_losses.register("attention_entropy")
@dataclasses.dataclass(frozen=True)
class AttentionEntropy(AttentionLoss):
  """Entropy of each query's attention weights, in nats; or its distance to a target.

      entropy = - sum_m a_m log a_m
      loss    = entropy, or (entropy - target)^2

  The mean over layers, heads and queries without padding. A positive weight sharpens
  attention, a negative one spreads it, as Attanasio et al. do, who take the mean of the
  heads' weights first. Weights that do not add up to 1, as those of sigmoid attention
  or after dropout, are divided by their sum; those below 0 count as 0.

  target   entropy that is wanted, in nats: log(n) is that of equal weights on n keys;
           None: the entropy itself is the loss
  weight   of the loss
  where    attention layers

  Weights are those of the core `dense`.

  >>> import numpy as np
  >>> w_BHLM = np.array([[[[0.5, 0.5, 0.0]]]])
  >>> float(jnp.exp(entropy(w_BHLM))[0, 0, 0].round(3))
  2.0
  """

  target: float | None = None
  weight: float = 0.01
  where: Where = "all"

  places = ("weights",)

  def loss(self, arrays):
    def of_layer(w_BHLM):
      entropy_BHL = entropy(w_BHLM)
      if self.target is not None:
        entropy_BHL = jnp.square(entropy_BHL - self.target)
      return jnp.mean(entropy_BHL, axis=1)

    return self.mean_of_layers(arrays, "weights", of_layer)


def entropy(w_BHLM: jax.Array) -> jax.Array:
  """Returns the entropy of the weights of each query, [B, H, L], in nats."""
  w_BHLM = jnp.maximum(w_BHLM, 0)
  sum_BHL1 = jnp.sum(w_BHLM, axis=-1, keepdims=True)
  w_BHLM = w_BHLM / jnp.where(sum_BHL1 > 0, sum_BHL1, 1)
  some_BHLM = w_BHLM > 0  # the gradient of 0 log 0 would be infinite
  return -jnp.sum(w_BHLM * jnp.log(jnp.where(some_BHLM, w_BHLM, 1)), axis=-1)
