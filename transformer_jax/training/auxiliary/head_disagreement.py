"""Disagreement of attention heads. Li et al., 2018. https://arxiv.org/abs/1810.10183"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from transformer_jax.training.auxiliary.base import (
  AttentionLoss,
  Where,
  auxiliary_losses,
)

PLACES = {"output": "output", "subspace": "value", "positions": "weights"}


@auxiliary_losses.register("head_diversity")
@dataclasses.dataclass(frozen=True)
class HeadDiversity(AttentionLoss):
  """Heads of a layer are drawn apart: their agreement, mean over all pairs i, j.

      output      cos(o_i, o_j)        of the heads' outputs for a query
      subspace    cos(v_i, v_j)        of a token's values
      positions   sum_m |a_im a_jm|    of the weights of a query on keys m

  The paper adds the negative of this, the disagreement, to the log-likelihood, with
  weight 1. Pairs i = j are among the H^2 pairs: a constant for cosines, and for
  positions a penalty of sharp weights. The loss is the mean over layers and tokens
  without padding; the paper sums weights over queries. Heads that share keys and values
  have one vector of values.

  on       what is compared
  where    attention layers; all of them, as in the paper's last experiment
  weight   of the loss

  Weights of attention are those of the core `dense`; outputs and values of any core.

  >>> loss = auxiliary_losses.build("head_diversity(positions, weight=0.1)")
  >>> loss.places
  ('weights',)
  """

  on: Literal["output", "subspace", "positions"] = "output"
  weight: float = 1.0
  where: Where = "all"

  @property
  def places(self) -> tuple[str, ...]:  # type: ignore[override]
    return (PLACES[self.on],)

  def loss(self, arrays):
    agreement = overlap if self.on == "positions" else cosine
    keys = self.on == "subspace"
    return self.mean_of_layers(arrays, PLACES[self.on], agreement, keys)


def cosine(x_BLHE: jax.Array) -> jax.Array:
  """Returns the mean over pairs of heads of the cosine of their vectors, [B, L].

  That is the squared length of the mean of unit vectors. A vector of zeros has a
  cosine of 0 with all.

  Raises ValueError for a single head.
  """
  check_heads(x_BLHE.shape[2])
  x_BLHE = x_BLHE.astype(jnp.float32)
  square_BLH1 = jnp.sum(jnp.square(x_BLHE), axis=-1, keepdims=True)
  some_BLH1 = square_BLH1 > 1e-20  # shorter vectors have no direction, nor a gradient
  length_BLH1 = jnp.sqrt(jnp.where(some_BLH1, square_BLH1, 1))
  unit_BLHE = jnp.where(some_BLH1, x_BLHE / length_BLH1, 0)
  return jnp.sum(jnp.square(jnp.mean(unit_BLHE, axis=2)), axis=-1)


def overlap(w_BHLM: jax.Array) -> jax.Array:
  """Returns the mean over pairs of heads of the sum of their weights' products, [B, L].

  That is the sum over keys of the squared mean of the weights.

  Raises ValueError for a single head.
  """
  check_heads(w_BHLM.shape[1])
  return jnp.sum(jnp.square(jnp.mean(jnp.abs(w_BHLM), axis=1)), axis=-1)


def check_heads(count: int) -> None:
  """Raises ValueError unless there are two heads to compare."""
  if count < 2:
    raise ValueError(
      "it compares heads, and the model has one; write model.heads=2 or more, and for"
      " 'subspace' attention whose heads have values of their own"
    )
