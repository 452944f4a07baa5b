"""What a probe predicts, a class or a set of tokens: losses, scores, baselines."""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np


class Prediction:
  """Base class of what is predicted. Subclasses are frozen dataclasses.

  count     C, number of logits
  measure   name of the score
  bits      of a sample where all labels are equally likely: log2 of their number

  >>> Classes(8).bits
  3.0
  """

  count: int
  ordered: bool = False
  measure: ClassVar[str]

  @property
  def bits(self) -> float:
    raise NotImplementedError

  def loss(self, logits_IC: jax.Array, label_I: jax.Array) -> jax.Array:
    """Returns the cross-entropy of each sample in nats, [I]."""
    raise NotImplementedError

  def score(self, logits_IC: jax.Array, label_I: jax.Array) -> jax.Array:
    """Returns the score of each sample, 0 to 1, [I]."""
    raise NotImplementedError

  def shares(self, label_I: np.ndarray) -> np.ndarray:
    """Returns how often each class is there, share_C."""
    raise NotImplementedError

  def draw(self, share_C: np.ndarray, uniform_NC: np.ndarray) -> np.ndarray:
    """Returns random labels with these shares, [N] or [N, A].

    uniform_NC   uniform random numbers from 0 to 1
    """
    raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Classes(Prediction):
  """One of several classes, scored by accuracy.

  ordered   whether classes are numbers: the mean absolute error is reported too

  >>> logits_IC = jnp.array([[0.0, 2.0], [3.0, 1.0]])
  >>> Classes(2).score(logits_IC, jnp.array([1, 1])).tolist()
  [1.0, 0.0]
  """

  count: int
  ordered: bool = False
  measure: ClassVar[str] = "accuracy"

  @property
  def bits(self):
    return float(np.log2(self.count))

  def loss(self, logits_IC, label_I):
    log_IC = jax.nn.log_softmax(logits_IC)
    return -jnp.take_along_axis(log_IC, label_I[:, None], axis=1)[:, 0]

  def score(self, logits_IC, label_I):
    return (jnp.argmax(logits_IC, axis=1) == label_I) * 1.0

  def error(self, logits_IC: jax.Array, label_I: jax.Array) -> jax.Array:
    """Returns the distance of the most likely class from the right one, [I]."""
    return jnp.abs(jnp.argmax(logits_IC, axis=1) - label_I) * 1.0

  def shares(self, label_I):
    return np.bincount(label_I, minlength=self.count) / len(label_I)

  def draw(self, share_C, uniform_NC):
    ends_C = np.cumsum(share_C)
    drawn_N = np.searchsorted(ends_C, uniform_NC[:, 0] * ends_C[-1], side="right")
    return np.minimum(drawn_N, self.count - 1).astype(np.int32)


@dataclasses.dataclass(frozen=True)
class TokenSet(Prediction):
  """A set of tokens, each predicted for itself.

  The score is the share of the set among as many most likely tokens as it has. Labels
  are the sets of 1 to `size` tokens. A probe says of each token for itself whether it
  is in the set; one that knows no more than how often tokens are there needs more bits
  than a code in which all sets are equally likely.

  size   A, the most tokens of a set; label_IA has -1 for none

  >>> logits_IC = jnp.array([[9.0, 5.0, 1.0, 0.0]])
  >>> TokenSet(4, size=3).score(logits_IC, jnp.array([[0, 0, 2]])).tolist()
  [0.5]
  """

  count: int
  size: int
  measure: ClassVar[str] = "precision"

  @property
  def bits(self):
    sizes = range(1, min(self.size, self.count) + 1)
    return math.log2(sum(math.comb(self.count, size) for size in sizes))

  def _members(self, label_IA: jax.Array) -> jax.Array:
    return jax.nn.one_hot(label_IA, self.count).max(axis=1)

  def loss(self, logits_IC, label_I):
    in_set_IC = self._members(label_I)
    return jnp.sum(jax.nn.softplus(logits_IC) - in_set_IC * logits_IC, axis=1)

  def score(self, logits_IC, label_I):
    in_set_IC = self._members(label_I)
    size_I1 = in_set_IC.sum(axis=1, keepdims=True)
    # Of equal logits the first class is the more likely one, as for argmax.
    rank_IC = jnp.argsort(jnp.argsort(-logits_IC, axis=1, stable=True), axis=1)
    found_I = jnp.sum(in_set_IC * (rank_IC < size_I1), axis=1)
    return found_I / jnp.maximum(size_I1[:, 0], 1)

  def shares(self, label_I):
    sets = [np.unique(label_A[label_A >= 0]) for label_A in label_I]
    return np.bincount(np.concatenate(sets), minlength=self.count) / len(label_I)

  def draw(self, share_C, uniform_NC):
    # The Gumbel trick: A tokens without replacement, likely ones more often.
    with np.errstate(divide="ignore"):
      score_NC = np.log(share_C) - np.log(-np.log(np.clip(uniform_NC, 1e-12, 1 - 1e-7)))
    return np.argsort(-score_NC, axis=1)[:, : self.size].astype(np.int32)
