"""The n-th largest number of each row, without sorting it: what selections choose by.

XLA's `top_k` sorts rows, which takes a CPU ten times as long as what follows here.
"""

import jax
import jax.numpy as jnp

FEW = 8  # largest numbers that are taken away one after another


def nth_largest(x_BHLM: jax.Array, n: int) -> jax.Array:
  """Returns the n-th largest number of each row, float32 BHL1, without a gradient.

  Equal numbers count as often as they are there. Infinity if n is 0; the least number
  of a row that is shorter than n.

  >>> x_BHLM = jnp.array([[[[3.0, 1.0, 3.0, 2.0]]]])
  >>> [nth_largest(x_BHLM, n).item() for n in (0, 1, 2, 3, 9)]
  [inf, 3.0, 3.0, 2.0, 1.0]
  """
  x_BHLM = jax.lax.stop_gradient(x_BHLM.astype(jnp.float32))
  n = min(n, x_BHLM.shape[-1])
  return _by_maxima(x_BHLM, n) if n <= FEW else _by_halving(x_BHLM, n)


def _by_maxima(x_BHLM, n):
  """Returns `nth_largest`: the largest number, then the largest below it, ..."""
  top_BHL1 = jnp.full((*x_BHLM.shape[:-1], 1), jnp.inf)
  left_BHL1 = jnp.full(top_BHL1.shape, n)
  for _ in range(n):
    below_BHLM = jnp.where(x_BHLM < top_BHL1, x_BHLM, -jnp.inf)
    next_BHL1 = jnp.max(below_BHLM, axis=-1, keepdims=True)
    top_BHL1 = jnp.where(left_BHL1 > 0, next_BHL1, top_BHL1)
    left_BHL1 -= jnp.sum(x_BHLM == next_BHL1, axis=-1, keepdims=True)
  return top_BHL1


def _by_halving(x_BHLM, n):
  """Returns `nth_largest`: the range that holds it is halved once for each bit."""
  ordered_BHLM = _flip(jax.lax.bitcast_convert_type(x_BHLM, jnp.int32))

  def halve(bit, low_BHL1):
    middle_BHL1 = low_BHL1 + jnp.left_shift(jnp.int32(1), 31 - bit)
    count_BHL1 = jnp.sum(ordered_BHLM >= middle_BHL1, axis=-1, keepdims=True)
    return jnp.where(count_BHL1 >= n, middle_BHL1, low_BHL1)

  lowest_BHL1 = jnp.full((*x_BHLM.shape[:-1], 1), jnp.iinfo(jnp.int32).min)
  found_BHL1 = jax.lax.fori_loop(0, 32, halve, lowest_BHL1)
  return jax.lax.bitcast_convert_type(_flip(found_BHL1), jnp.float32)


def _flip(bits):
  """Returns bits of floats as integers of the same order, or these as bits again."""
  return jnp.where(bits < 0, bits ^ jnp.iinfo(jnp.int32).max, bits)
