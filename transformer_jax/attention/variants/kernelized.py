"""Base class of kernel attention: weights are products of features.

Katharopoulos et al., 2020, https://arxiv.org/abs/2006.16236
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from transformer_jax.attention.variants.base import Variant

TINY = 1e-30  # where weights add up to less than this, nothing is seen
CHANGE_SCORES = "bias", "mask", "score", "values", "full_scores"
TURN = "rotate", "transform_qk", "temperature"


@dataclasses.dataclass(frozen=True)
class Kernel(Variant):
  """Weights are products of positive features, shared out over the keys a query sees.

  Sums over keys can then run along the text: the core `linear` never makes a weight. A
  subclass defines `features`, each token's by itself.
  """

  turns: ClassVar[bool] = False  # features of turned queries and keys make sense

  def weigh(self, params, s_BHLM, mask_B1LM):
    w_BHLM = jnp.where(mask_B1LM, s_BHLM, 0.0)
    return divide(w_BHLM, jnp.sum(w_BHLM, axis=-1, keepdims=True))

  def refusal(self, encoding):
    if any(encoding.overrides(hook) for hook in CHANGE_SCORES):
      return (
        f"{self.name} has no softmax whose scores {encoding.name} could change; use an"
        " encoding that changes embeddings, as sinusoidal, or another attention"
      )
    if not self.turns and any(encoding.overrides(hook) for hook in TURN):
      return (
        f"{self.name} takes features of each vector by itself, and {encoding.name}"
        " turns vectors to compare them; use an encoding that changes embeddings, as"
        " sinusoidal, or model.attention=performer"
      )
    if encoding.centred:
      return (
        f"{self.name} takes features of each vector by itself, and {encoding.name}"
        " turns vectors by where the middle of the text is: later tokens would change"
        " earlier ones; use rope, or another attention"
      )
    return None


def divide(x: jax.Array, total: jax.Array) -> jax.Array:
  """Divides by sums of weights; zero, as is the gradient, where nothing is seen.

  Sums may be so small that the gradient's 1 / total^2 would not be finite.
  """
  some = total > TINY
  inverse = jax.lax.stop_gradient(jnp.where(some, 1 / jnp.where(some, total, 1.0), 0.0))
  return (x * inverse) / jnp.where(some, total * inverse, 1.0)
