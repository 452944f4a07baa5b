"""Importance of single tokens for a classifier's output, beside the attention on them.

Gradient times input, leave-one-out, Kendall's rank correlation: Jain and
Wallace, 2019, section 4.1. https://arxiv.org/abs/1902.10186
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from transformer_jax.analysis.explanation import probability, total_variation
from transformer_jax.data.base import Batch
from transformer_jax.data.tokenizers import PAD
from transformer_jax.models import Transformer, capture
from transformer_jax.models.heads import mean
from transformer_jax.positions import coords

SIGNIFICANT = 0.05


def gradient_times_input(
  model: Transformer, params: Any, batch: Batch, classes: int
) -> jax.Array:
  """Returns |(embedding - mean) . gradient| of each token, [B, L].

  The gradient is that of the probability of the likeliest class; the mean is over the
  tokens of the text. To first order this is how far the output moves when a token
  becomes an average one. Without the mean it would be 0 where a norm follows, since
  the length of the embedding then changes nothing.
  """
  logits_BLV, found = capture.run(model, params, *batch.reads, want=("state",))
  path = next(iter(capture.in_order(found["state"])))
  class_B = jnp.argmax(probability(logits_BLV, batch, classes), axis=-1)

  def likeliest(logits_BLV: jax.Array) -> jax.Array:
    probability_BV = probability(logits_BLV, batch, classes)
    return jnp.sum(jnp.take_along_axis(probability_BV, class_B[:, None], axis=-1))

  grads = capture.gradients(likeliest, model, params, *batch.reads, want=("state",))
  x_BLD = found["state"][path]
  x_BLD -= mean(x_BLD, batch.at.real_BL)[:, None]
  return jnp.abs(jnp.sum(x_BLD * grads["state"][path], axis=-1))


def leave_one_out(
  model: Transformer, params: Any, batch: Batch, classes: int
) -> jax.Array:
  """Returns the distance that the output moves without each token, [B, L].

  The text is read again without it, one token shorter; positions close up.
  """

  def output(batch: Batch) -> jax.Array:
    logits_BLV = jnp.asarray(model.apply({"params": params}, *batch.reads))
    return probability(logits_BLV, batch, classes)

  whole_BV = output(batch)

  def moved(place: jax.Array) -> jax.Array:
    return total_variation(whole_BV, output(without(batch, place)))

  return jax.lax.map(moved, jnp.arange(batch.input_BL.shape[1])).T


def without(batch: Batch, place: int | jax.Array) -> Batch:
  """Returns texts without the token at a place, those before it moved to the right.

  >>> token_BL, real_BL = jnp.array([[0, 1, 5, 6, 2]]), jnp.array([[0, 1, 1, 1, 1]])
  >>> weight_BL = jnp.array([[0.0, 1.0, 0.0, 0.0, 0.0]])
  >>> batch = Batch(token_BL, token_BL, weight_BL, coords.packed(real_BL))
  >>> shorter = without(batch, 3)
  >>> shorter.input_BL.tolist(), shorter.weight_BL.tolist()
  ([[0, 0, 1, 5, 2]], [[0.0, 0.0, 1.0, 0.0, 0.0]])
  """
  here_L = jnp.arange(batch.input_BL.shape[1])
  from_L = jnp.maximum(jnp.where(here_L <= place, here_L - 1, here_L), 0)
  real_BL = batch.at.real_BL[:, from_L] & (here_L > 0)
  return Batch(
    jnp.where(real_BL, batch.input_BL[:, from_L], PAD),
    batch.target_BL[:, from_L],
    jnp.where(real_BL, batch.weight_BL[:, from_L], 0.0),
    coords.packed(real_BL.astype(jnp.int32)),
  )


def kendall(
  x_BL: np.ndarray, y_BL: np.ndarray, word_BL: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Returns (tau_B, p_B): Kendall's tau-b of two importances, and its p-values.

  word_BL   the tokens that count

  Both are NaN for a text with fewer than two words, or whose values are all the same.

  >>> x_BL, word_BL = np.array([[1.0, 2.0, 3.0, 9.0]]), np.array([[1, 1, 1, 0]], bool)
  >>> [x.tolist() for x in kendall(x_BL, -x_BL, word_BL)]
  [[-1.0], [0.3333333333333333]]
  """
  pairs = zip(x_BL, y_BL, word_BL, strict=True)
  found = [
    stats.kendalltau(x_L[word_L], y_L[word_L]) if word_L.sum() > 1 else (np.nan, np.nan)
    for x_L, y_L, word_L in pairs
  ]
  tau_B, p_B = np.array(found).T
  return tau_B, p_B
