"""Systems of unit lower triangular matrices, by products alone.

XLA solves a batch of triangular systems one after another on a CPU, in hundreds of
times the time of a product of the same size.
"""

import jax
import jax.numpy as jnp

BASE = 8  # rows that are substituted one by one


def solve_unit_lower(low: jax.Array, b: jax.Array) -> jax.Array:
  """Returns x with x + low x = b.

  low   [..., C, C], C a power of 2 from 8, zero on the diagonal and above it
  b     [..., C, N]

  It is differentiable to any order.

  >>> low = jnp.zeros((8, 8)).at[1, 0].set(2.0)
  >>> solve_unit_lower(low, jnp.ones((8, 1)))[:3].ravel().tolist()
  [1.0, -1.0, 1.0]
  """
  inverse = inverse_unit_lower(jax.lax.stop_gradient(low))
  return jax.lax.custom_linear_solve(
    lambda x: x + low @ x,
    b,
    solve=lambda _, b: inverse @ b,
    transpose_solve=lambda _, b: jnp.swapaxes(inverse, -1, -2) @ b,
  )


def inverse_unit_lower(low: jax.Array) -> jax.Array:
  """Returns the inverse of the identity plus `low`, [..., C, C].

  Blocks on the diagonal are inverted by substitution, then joined to blocks of twice
  the size. A series of powers would take as many products, and lose digits where keys
  of a chunk are alike: its terms grow to many times their sum.
  """
  size = BASE
  inverse = _substituted(_diagonal(low, size))
  while inverse.shape[-3] > 1:
    first, second = inverse[..., ::2, :, :], inverse[..., 1::2, :, :]
    below = _diagonal(low, 2 * size)[..., size:, :size]
    inverse = joined(first, -(second @ (below @ first)), second)
    size *= 2
  return inverse[..., 0, :, :]


def _diagonal(x: jax.Array, size: int) -> jax.Array:
  """Returns the blocks on the diagonal, [..., blocks, size, size]."""
  n = x.shape[-1] // size
  blocks = x.reshape(*x.shape[:-2], n, size, n, size)
  return jnp.moveaxis(jnp.diagonal(blocks, axis1=-4, axis2=-2), -1, -3)


def _substituted(low: jax.Array) -> jax.Array:
  """Returns the inverse of the identity plus small blocks, row by row."""
  C = low.shape[-1]
  identity = jnp.eye(C, dtype=low.dtype)
  rows = [jnp.broadcast_to(identity[0], low[..., 0, :].shape)]
  for i in range(1, C):
    above = jnp.stack(rows, axis=-2)
    rows.append(identity[i] - jnp.sum(low[..., i, :i, None] * above, axis=-2))
  return jnp.stack(rows, axis=-2)


def joined(first: jax.Array, below: jax.Array, second: jax.Array) -> jax.Array:
  """Returns the lower triangular matrices [[first, 0], [below, second]]."""
  above = jnp.concatenate([first, jnp.zeros_like(first)], axis=-1)
  return jnp.concatenate([above, jnp.concatenate([below, second], axis=-1)], axis=-2)
