"""Measures of examples: bits per byte, accuracy, exact match."""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Measure:
  """Measure of each example, and its better direction.

  better    "lower" or "higher"
  compute   (loss_BL, right_BL, weight_BL) -> [B]; averaged over examples
  quarter   whether it is defined on the last quarter of the targets

  >>> import numpy as np
  >>> loss_BL, right_BL = np.array([[0.7, 0.1]]), np.array([[False, True]])
  >>> weight_BL = np.array([[1.0, 1.0]])
  >>> exact = MEASURES["exact_match"]
  >>> exact.better, exact.compute(loss_BL, right_BL, weight_BL).tolist()
  ('higher', [0.0])
  >>> accuracy = MEASURES["accuracy"]
  >>> accuracy.compute(loss_BL, right_BL, weight_BL).tolist()
  [0.5]
  """

  better: str
  compute: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
  quarter: bool = True


def _mean(x_BL: jax.Array, weight_BL: jax.Array) -> jax.Array:
  return jnp.sum(x_BL * weight_BL, axis=1) / jnp.sum(weight_BL, axis=1)


MEASURES = {
  "bits_per_byte": Measure(
    "lower", lambda loss, right, weight: _mean(loss, weight) / math.log(2)
  ),
  "accuracy": Measure("higher", lambda loss, right, weight: _mean(right, weight)),
  # Every answer token is predicted from the right ones: greedy decoding equals this.
  "exact_match": Measure(
    "higher",
    lambda loss, right, weight: jnp.all(right | (weight == 0), axis=1) * 1.0,
    quarter=False,
  ),
}
