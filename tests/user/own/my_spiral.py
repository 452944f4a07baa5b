"""Encodings and a task of a user, outside the package."""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.data.tasks.algorithmic.copy import Copy
from transformer_jax.positions import PositionalEncoding


@dataclasses.dataclass(frozen=True)
class Spiral(PositionalEncoding):
  """Turns the two halves of a vector, every pair at the same speed."""

  turns: int = 1

  def rotate(self, params, x_BLHK, pos_BL):
    angle_BL11 = 2 * jnp.pi * self.turns * pos_BL[:, :, None, None] / 64
    a, b = jnp.split(x_BLHK, 2, axis=-1)
    cos, sin = jnp.cos(angle_BL11), jnp.sin(angle_BL11)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


class Broken(Spiral):
  """Has a mistake that only texts as long as those of training show."""

  def rotate(self, params, x_BLHK, pos_BL):
    if x_BLHK.shape[1] > 8:
      raise RuntimeError("no such turn")
    return super().rotate(params, x_BLHK, pos_BL)


@dataclasses.dataclass(frozen=True)
class Poisoned(Copy):
  """Copies, but the loss of a batch that draws more than `luck` is NaN."""

  luck: float = 1.0

  def batch(self, arrays, key, batch_size, length, progress=1.0):
    batch = super().batch(arrays, key, batch_size, length)
    bad = jax.random.uniform(key) > self.luck
    weight_BL = jnp.where(bad, jnp.nan, batch.weight_BL)
    return dataclasses.replace(batch, weight_BL=weight_BL)
