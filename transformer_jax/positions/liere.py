"""LieRE: Lie rotational positional encodings. Ostmeier et al., 2024.

https://arxiv.org/abs/2406.10322
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.positions.base import PositionalEncoding, positions
from transformer_jax.positions.sinusoidal_2d import on_grid


@positions.register("liere")
@dataclasses.dataclass(frozen=True)
class LieRE(PositionalEncoding):
  """Rotates blocks of features by learned rotations of row and column.

      R(row, column) = exp(y A + x B), y = row / (height - 1), x = column / (width - 1)

  A and B are learned skew-symmetric matrices of each block of features. Rotations of
  different blocks commute; those of the axes of one block do not, so that scores depend
  on places, not on distances alone. A token outside of the grid (a negative row), such
  as a class token, is not rotated, nor are features that fill no block.

  block           features in a block
  height, width   rows and columns of the images in training
  per_head        whether heads have their own rotations
  per_layer       whether layers have

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> at, x_BLHK = tj.positions.coords.grid(2, 2), np.tile([1.0, 0], (1, 4, 1, 1))
  >>> params = {"row_HNP": np.float32([[[1.0]]]), "column_HNP": np.float32([[[0.5]]])}
  >>> liere = tj.positions.build("liere(block=2, height=2, width=2)")
  >>> turned = jax.jit(liere.transform_qk)(params, x_BLHK, x_BLHK, at, at)[0]
  >>> cos, sin = np.asarray(turned[0, :, 0]).T
  >>> print(np.arctan2(-sin, cos).round(2) + 0)
  [0.  0.5 1.  1.5]
  """

  block: int = 8
  height: int = 8
  width: int = 8
  per_head: bool = True
  per_layer: bool = True
  relative = False
  ids = ("row_BL", "column_BL")

  def __post_init__(self):
    for name in ("block", "height", "width"):
      if not (isinstance(getattr(self, name), int) and getattr(self, name) > 1):
        raise ValueError(
          f"liere: {name} is {getattr(self, name)!r}; write a whole number above 1"
        )

  def init(self, key, dims):
    if dims.K < self.block:
      raise ValueError(
        f"liere turns blocks of {self.block} features, and a head has {dims.K}; write"
        f" liere(block={dims.K}) or widen the head"
      )
    N, P = dims.K // self.block, self.block * (self.block - 1) // 2
    shape, letters = ((dims.H, N, P), "HNP") if self.per_head else ((N, P), "NP")
    keys = zip(("row", "column"), jax.random.split(key), strict=True)
    return {
      f"{name}_{letters}": jax.random.uniform(key, shape, maxval=2 * np.pi)
      for name, key in keys
    }

  def transform_qk(self, params, q_BLHK, k_BMHK, q_at, k_at):
    of_queries = self.rotations(params, q_at)
    same = all(q_at.data[name] is k_at.data[name] for name in self.ids)
    of_keys = of_queries if same else self.rotations(params, k_at)
    return self._rotated(q_BLHK, of_queries), self._rotated(k_BMHK, of_keys)

  def rotations(self, params: dict[str, jax.Array], at) -> jax.Array:
    """Returns the rotation of each token and block, [B, L, heads or 1, N, g, g]."""
    row_BL, column_BL, _ = on_grid(at)
    places = {"row": row_BL / (self.height - 1), "column": column_BL / (self.width - 1)}
    angle = jnp.float32(0.0)
    for name, x in params.items():
      place_BL111 = places[name.partition("_")[0]][:, :, None, None, None]
      angle += place_BL111 * (x if self.per_head else x[None])
    upper, lower = np.triu_indices(self.block, 1)
    skew = jnp.zeros((*angle.shape[:-1], self.block, self.block), jnp.float32)
    skew = skew.at[..., upper, lower].set(angle)
    return exponential(skew - jnp.swapaxes(skew, -1, -2))

  def _rotated(self, x_BLHK, rotation):
    N, g = rotation.shape[-3:-1]
    blocks = x_BLHK[..., : N * g].astype(jnp.float32)
    blocks = blocks.reshape(*x_BLHK.shape[:-1], N, g, 1)
    turned = jnp.matmul(rotation, blocks).reshape(*x_BLHK.shape[:-1], N * g)
    turned = turned.astype(x_BLHK.dtype)
    return jnp.concatenate([turned, x_BLHK[..., N * g :]], axis=-1)


SQUARINGS, TERMS = 10, 12  # exact to float32 up to a norm of a thousand


def exponential(a: jax.Array) -> jax.Array:
  """Returns the matrix exponential of float32 matrices [..., g, g].

  The series of a / 2^n, of norm 1 or less, is squared n times. For rotations it is ten
  times as exact as the quotient of `jax.scipy.linalg.expm`, which solves equations.
  """
  norm = jnp.max(jnp.sum(jnp.abs(jax.lax.stop_gradient(a)), axis=-1), axis=-1)
  n = jnp.ceil(jnp.log2(jnp.maximum(norm, 1.0)))[..., None, None]
  n = jnp.minimum(n, SQUARINGS)
  a *= 2.0**-n
  square = jnp.matmul(a, a)
  powers, cube = (jnp.eye(a.shape[-1], dtype=a.dtype), a, square), jnp.matmul(a, square)
  total = cube / math.factorial(TERMS)
  for first in range(TERMS - 3, -1, -3):  # three terms, then a product by the cube
    total = jnp.matmul(total, cube) if first < TERMS - 3 else total
    total += sum(x / math.factorial(first + i) for i, x in enumerate(powers))
  for done in range(SQUARINGS):
    total = jnp.where(done < n, jnp.matmul(total, total), total)
  return total
