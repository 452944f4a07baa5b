"""Attention as an explanation: the weights by which a classifier reads, and others.

Jain and Wallace, 2019, https://arxiv.org/abs/1902.10186;
Wiegreffe and Pinter, 2019, https://arxiv.org/abs/1908.04626.

Other weights keep the sum of each row, and stand on the keys that its query attends to.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from transformer_jax.analysis.divergence import jensen_shannon
from transformer_jax.data.base import Batch
from transformer_jax.models import Transformer, capture

NEGATIVE = 1e-6  # weights below minus this are no shares


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Explained:
  """Output of a classifier on a batch of texts, and the weights of one of its layers.

  probability_BV   of the classes
  weights_BHLM     0 where there is no key
  key_BHLM         bool, the keys that each query attends to
  read_BL          bool, the queries whose results the output reads: that of the
                   position which is classified, if the layer is the last one
  word_BL          bool, the tokens between start and end

  >>> one, two = jnp.ones((1, 1, 1, 1)), jnp.ones((1, 1), bool)
  >>> Explained(jnp.ones((1, 2)), one, one > 0, two, two).share_BM.tolist()
  [[1.0]]
  """

  probability_BV: jax.Array
  weights_BHLM: jax.Array
  key_BHLM: jax.Array
  read_BL: jax.Array
  word_BL: jax.Array

  @property
  def mass_BHL1(self) -> jax.Array:
    """Sums of the rows, 1 of a softmax and less with a sink."""
    return jnp.sum(self.weights_BHLM, axis=-1, keepdims=True)

  @property
  def share_BM(self) -> jax.Array:
    """The explanation, a share for each token: mean over heads and read queries."""
    read_B1L1 = self.read_BL[:, None, :, None]
    share_BHLM = jnp.where(read_B1L1, shares(self.weights_BHLM), 0.0)
    return shares(jnp.sum(share_BHLM, axis=(1, 2)))


def layers(model: Transformer, params: Any, batch: Batch) -> list[str]:
  """Returns the paths of the layers that attend, none of a recurrent classifier."""
  look = lambda params: capture.run(model, params, *batch.reads)[1]["weights"]
  return list(capture.in_order(jax.eval_shape(look, params)))


def explained(
  model: Transformer, params: Any, batch: Batch, path: str, classes: int
) -> Explained:
  """Returns the output of a classifier, and the weights of the layer at a path.

  model     one stack, of a task that classifies texts
  params    of one seed
  batch     of the task: its weight is 1 at the position that is classified
  path      of the layer, one of `layers`
  classes   number of labels
  """
  want = ("weights", "mask")
  logits_BLV, found = capture.run(model, params, *batch.reads, want=want)
  weights_BHLM, mask = found["weights"][path], found["mask"][path]
  mask_BHLM = mask if mask.ndim == 4 else mask[:, None]
  real_BL = batch.at.real_BL
  return Explained(
    probability_BV=probability(logits_BLV, batch, classes),
    weights_BHLM=weights_BHLM,
    key_BHLM=jnp.broadcast_to(mask_BHLM, weights_BHLM.shape),
    read_BL=real_BL if _all_read(model, path) else batch.weight_BL > 0,
    word_BL=_words(real_BL),
  )


def predict(
  model: Transformer,
  params: Any,
  batch: Batch,
  path: str,
  classes: int,
  weights_BHLM: jax.Array,
) -> jax.Array:
  """Returns probability_BV with other weights in the layer at a path."""
  edit = {"weights": lambda here, w: weights_BHLM if here == path else w}
  logits_BLV, _ = capture.run(model, params, *batch.reads, want=(), edit=edit)
  return probability(logits_BLV, batch, classes)


def shares(weights: jax.Array) -> jax.Array:
  """Returns weights by their sum over the last axis; 0 where there are none."""
  sum_1 = jnp.sum(weights, axis=-1, keepdims=True)
  return weights / jnp.where(sum_1 > 0, sum_1, 1.0)


def total_variation(p: jax.Array, q: jax.Array) -> jax.Array:
  """Returns half the sum of |p - q| over the last axis, from 0 to 1.

  >>> float(total_variation(jnp.array([1.0, 0.0]), jnp.array([0.25, 0.75])))
  0.75
  """
  return jnp.sum(jnp.abs(p - q), axis=-1) / 2


def shift(of: Explained, weights_BHLM: jax.Array) -> jax.Array:
  """Returns the divergence of the shares of other weights from the model's, [B]."""
  other_BM = dataclasses.replace(of, weights_BHLM=weights_BHLM).share_BM
  return jensen_shannon(of.share_BM, other_BM)


def uniform(of: Explained) -> jax.Array:
  """Returns weights_BHLM that are equal for all keys of a query."""
  return of.mass_BHL1 * shares(of.key_BHLM.astype(jnp.float32))


def permuted(of: Explained, key: jax.Array) -> jax.Array:
  """Returns weights_BHLM, permuted among the keys of each query.

  All heads and queries of a text that attend to the same keys share one permutation.
  """
  B, _, _, M = of.weights_BHLM.shape
  drawn_B11M = jax.random.uniform(key, (B, 1, 1, M))
  from_BHLM = jnp.argsort(jnp.where(of.key_BHLM, drawn_B11M, 2.0), axis=-1)
  to_BHLM = jnp.argsort(jnp.where(of.key_BHLM, jnp.arange(M), M), axis=-1)
  moved_BHLM = jnp.take_along_axis(of.weights_BHLM, from_BHLM, axis=-1)
  return jnp.take_along_axis(moved_BHLM, jnp.argsort(to_BHLM, axis=-1), axis=-1)


def check_shares(weights: npt.ArrayLike, path: str) -> None:
  """Raises ValueError for weights that are no shares: some are below zero."""
  least = float(np.min(weights))
  if least < -NEGATIVE:
    raise ValueError(
      f"{path} has weights below zero (down to {least:.3g}), which are no shares of its"
      " keys: explain a run whose attention is a softmax, such as multihead"
    )


def probability(logits_BLV: jax.Array, batch: Batch, classes: int) -> jax.Array:
  """Returns probability_BV at the position that is classified."""
  place_B11 = jnp.argmax(batch.weight_BL, axis=1)[:, None, None]
  logits_BV = jnp.take_along_axis(logits_BLV, place_B11, axis=1)[:, 0]
  return jax.nn.softmax(logits_BV[:, :classes], axis=-1)


def _all_read(model: Transformer, path: str) -> bool:
  """Returns whether the output reads all queries of a layer."""
  arch = model.arch
  last = f"layer_{max(arch.encoders, arch.decoders) - 1}/"
  return arch.head.pooled or last not in path


def _words(real_BL: jax.Array) -> jax.Array:
  """Returns the tokens of each text but the first and the last one."""
  before_BL = jnp.pad(real_BL, ((0, 0), (1, 0)))[:, :-1]
  after_BL = jnp.pad(real_BL, ((0, 0), (0, 1)))[:, 1:]
  return real_BL & before_BL & after_BL
