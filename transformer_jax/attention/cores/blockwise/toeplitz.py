"""Toeplitz tiles of biases that depend on the distance alone, made without a gather.

In a tile of consecutive queries and keys, distances are constant along diagonals: bq +
bk - 1 numbers determine the tile. They are spread by a few large copies. A gather, or a
reshape that XLA compiles to one, costs more than attention itself. The gradient sums
diagonals by the same steps in reverse.
"""

import functools

import jax
import jax.numpy as jnp


def spread(window_HN: jax.Array, bq: int) -> jax.Array:
  """Returns tile_HLM of bq rows; the window starts at the last row.

  tile[:, i, j] = window[:, bq - 1 - i + j]
  """
  return _spread(bq, window_HN)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _spread(bq, window_HN):
  steps, spare = _steps(bq)
  x = jnp.pad(window_HN, ((0, 0), (spare, 0)))[:, None]
  rows = 1
  for count in steps:
    width = x.shape[2] - (count - 1) * rows
    starts = [(count - 1 - n) * rows for n in range(count)]
    parts = [jax.lax.slice_in_dim(x, at, at + width, axis=2) for at in starts]
    x, rows = jnp.concatenate(parts, axis=1), rows * count
  return x[:, :bq]


def collapse(tile_HLM: jax.Array) -> jax.Array:
  """Returns window_HN, the sums along diagonals: the transpose of `spread`."""
  bq = tile_HLM.shape[1]
  steps, spare = _steps(bq)
  x = jnp.pad(tile_HLM, ((0, 0), (0, spare), (0, 0)))
  rows = bq + spare
  for count in reversed(steps):
    rows //= count
    width = x.shape[2]
    total = jnp.zeros((x.shape[0], rows, width + (count - 1) * rows), x.dtype)
    for n in range(count):
      at = (count - 1 - n) * rows
      part = jax.lax.slice_in_dim(x, n * rows, (n + 1) * rows, axis=1)
      total = total.at[:, :, at : at + width].add(part)
    x = total
  return x[:, 0, spare:]


_spread.defvjp(
  lambda bq, window_HN: (_spread(bq, window_HN), None),
  lambda bq, _, d_tile_HLM: (collapse(d_tile_HLM),),
)


def _steps(bq: int) -> tuple[list[int], int]:
  """Returns (factors, spare): the product of the factors is bq + spare."""
  steps, rows = [], bq
  while rows > 16:
    steps.append(8)
    rows = -(-rows // 8)
  steps.append(rows)
  product = functools.reduce(lambda a, b: a * b, steps)
  return steps, product - bq


def table(position, shift, L: int, M: int) -> jax.Array:
  """Returns the bias table_HN of every distance between L queries and M keys.

  Query i and key j are shift + i - j apart; entry L - 1 - i + j is theirs.
  """
  distance_N = shift + (L - 1) - jnp.arange(L + M - 1, dtype=jnp.asarray(shift).dtype)
  zero = jnp.zeros((1, 1), distance_N.dtype)
  return position.bias(distance_N[None], zero)[0, :, :, 0]
