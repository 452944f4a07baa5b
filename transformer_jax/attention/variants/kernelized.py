"""Base class of kernel attention: weights are products of features.

Katharopoulos et al., 2020, https://arxiv.org/abs/2006.16236
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from transformer_jax.attention.variants.base import Variant

TINY = 1e-30  # a sum of weights below this counts as zero
CHANGE_SCORES = "bias", "mask", "score", "values", "full_scores"
TURN = "rotate", "transform_qk", "temperature"


@dataclasses.dataclass(frozen=True)
class Kernel(Variant):
  """Weights that are products of positive features, normalized over unmasked keys.

  The core `linear` then computes running sums over keys, without any weight. A subclass
  defines `features`, of each token by itself.

  >>> import transformer_jax as tj
  >>> rope = tj.positions.build("rope")
  >>> print(tj.attentions.build("linear").refusal(rope).partition(";")[0])
  linear takes features of each vector by itself, and rope turns vectors to compare them
  >>> print(tj.attentions.build("performer").refusal(rope))
  None
  """

  turns: ClassVar[bool] = False  # whether features of rotated vectors make sense

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
  """Returns x / total; zero, with zero gradient, if all keys are masked.

  A total may be so small that 1 / total^2, in the gradient, would not be finite.
  """
  some = total > TINY
  inverse = jax.lax.stop_gradient(jnp.where(some, 1 / jnp.where(some, total, 1.0), 0.0))
  return (x * inverse) / jnp.where(some, total * inverse, 1.0)
