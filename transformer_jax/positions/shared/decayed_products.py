"""Products of queries and keys whose features decay from the key to the query.

A pair of tokens has a factor for each feature: the exponential of a difference of two
running sums. With a token between them as reference it is one factor of the query times
one of the key, both at most 1, and pairs become products, as in chunks of gated linear
attention (Yang et al., 2023, https://arxiv.org/abs/2312.06635).

The reference of a block of queries and of all keys before it is the block's first
token. Within a block it is the first token of the second of two parts, for parts of 1,
2, 4 ... tokens. A query's sum has the gradient q dq, and a key's sum -k dk.
"""

import jax
import jax.numpy as jnp

BLOCK = 32  # queries with one reference, a power of 2
SIZES = 1, 2, 4, 8, 16  # of the parts of a block

Sums = tuple[jax.Array, jax.Array]


@jax.custom_vjp
def decayed_products(
  q_LK: jax.Array, k_MK: jax.Array, q_sums: Sums, k_sums: Sums, start: jax.Array
) -> jax.Array:
  """Returns sums over features of q_i k_j exp(sum_i - sum_j), float32 s_LM.

  Right where a key is no later than its query, and finite elsewhere.

  q_LK, k_MK       queries and keys
  q_sums, k_sums   running sums of logarithms of decays, (high, low), each [L, K]
  start            index of the key of the first query's token, which may be outside
  """
  q_nCK, k_nCK, *sums = _blocks(q_LK, k_MK, q_sums, k_sums, start)
  q_, k_ = _before_blocks(q_LK, k_MK, q_sums, k_sums)
  s_nCM = _product(q_nCK * q_, k_MK * k_)
  s_nCC = _product(q_nCK, k_nCK)  # of a token and itself nothing decays
  for pairs_CC, q_, k_ in _within_blocks(*sums):
    s_nCC = jnp.where(pairs_CC, _product(q_nCK * q_, k_nCK * k_), s_nCC)
  return _put_blocks(s_nCM, s_nCC, start)[: len(q_LK)]


def _save(*args):
  return decayed_products(*args), args


def _pull(saved, d_LM):
  q_LK, k_MK, q_sums, k_sums, start = saved
  (L, K), no = q_LK.shape, jnp.zeros_like
  q_nCK, k_nCK, *sums = _blocks(q_LK, k_MK, q_sums, k_sums, start)
  q_, k_ = _before_blocks(q_LK, k_MK, q_sums, k_sums)
  d_nCM = _in_blocks(d_LM)
  d_nCC = _get_blocks(d_nCM, start)
  d_nCM = _in_blocks(_put_blocks(d_nCM, no(d_nCC), start))
  d_q_nCK = (d_nCM @ (k_MK * k_)) * q_
  d_k_nMK = (jnp.swapaxes(d_nCM, 1, 2) @ (q_nCK * q_)) * k_
  d_k_MK = sum(d_k_nMK[n] for n in range(len(d_nCM)))  # XLA's own sum is slow
  d_k_nCK, itself = no(k_nCK), (jnp.eye(BLOCK, dtype=bool), 1.0, 1.0)
  for pairs_CC, q_, k_ in (itself, *_within_blocks(*sums)):
    d_pairs_nCC = jnp.where(pairs_CC, d_nCC, 0.0)
    d_q_nCK += (d_pairs_nCC @ (k_nCK * k_)) * q_
    d_k_nCK += (jnp.swapaxes(d_pairs_nCC, 1, 2) @ (q_nCK * q_)) * k_
  d_q_LK = d_q_nCK.reshape(-1, K)[:L]
  d_k_MK += _window(d_k_nCK.reshape(-1, K), -start, len(k_MK))
  d_q_sums, d_k_sums = (q_LK * d_q_LK, no(q_LK)), (-k_MK * d_k_MK, no(k_MK))
  return d_q_LK, d_k_MK, d_q_sums, d_k_sums, None


decayed_products.defvjp(_save, _pull)


def _before_blocks(q_LK, k_MK, q_sums, k_sums):
  """Returns factors of queries [n, C, K] and of keys before each block [n, M, K]."""
  q_sums_ = [_in_blocks(x) for x in q_sums]
  first = [x[:, :1] for x in q_sums_]
  return _factor(q_sums_, first), _factor(first, k_sums)


def _within_blocks(q_sums, k_sums):
  """Yields, for each size of parts, the pairs of a block and factors [n, C, K]."""
  place = jnp.arange(BLOCK)
  for size in SIZES:
    first = [jnp.repeat(x[:, size :: 2 * size], 2 * size, axis=1) for x in q_sums]
    part_C1, part_C = place[:, None] // size, place // size
    pairs_CC = (part_C1 % 2 == 1) & (part_C1 - 1 == part_C)
    yield pairs_CC, _factor(q_sums, first), _factor(first, k_sums)


def _factor(late, early):
  """Returns exp(late - early); 1 where sums do not fall, as in padding."""
  (high, low), (early_high, early_low) = late, early
  apart = (high - early_high) + (low - early_low)
  return jnp.exp(jnp.where(apart < 1.0, apart, 0.0))  # below 1: rounding errors


def _product(q_nCK, k_nMK):
  return jnp.matmul(q_nCK, jnp.swapaxes(k_nMK, -1, -2), precision="highest")


def _blocks(q_LK, k_MK, q_sums, k_sums, start):
  """Returns queries, their tokens' keys, and the sums of both, in blocks."""
  q_nCK, *q_sums_ = (_in_blocks(x) for x in (q_LK, *q_sums))
  width = len(q_nCK) * BLOCK
  k_nCK, *k_sums_ = (_in_blocks(_window(x, start, width)) for x in (k_MK, *k_sums))
  return q_nCK, k_nCK, q_sums_, k_sums_


def _in_blocks(x_LK):
  x_LK = jnp.pad(x_LK, ((0, -len(x_LK) % BLOCK), (0, 0)))
  return x_LK.reshape(-1, BLOCK, x_LK.shape[1])


def _window(x_MK, start, width):
  """Returns rows from `start` on; zeros outside of the array."""
  zero = jnp.zeros((width, x_MK.shape[1]), x_MK.dtype)
  x_MK = jnp.concatenate([zero, x_MK, zero])
  return jax.lax.dynamic_slice_in_dim(x_MK, start + width, width)


def _put_blocks(s_nCM, s_nCC, start):
  """Returns s_LM with the scores of each block's own keys in their places."""
  s_LM = jnp.pad(s_nCM.reshape(-1, s_nCM.shape[2]), ((0, 0), (BLOCK, BLOCK)))
  for n, s_CC in enumerate(s_nCC):  # those outside of the tile fall on the margins
    s_LM = jax.lax.dynamic_update_slice(s_LM, s_CC, _corner(n, start))
  return s_LM[:, BLOCK:-BLOCK]


def _get_blocks(s_nCM, start):
  """Returns s_nCC, the scores of each block's own keys, zero outside of the tile."""
  s_nCM = jnp.pad(s_nCM, ((0, 0), (0, 0), (BLOCK, BLOCK)))
  parts = [
    jax.lax.dynamic_slice_in_dim(s_CM, _corner(n, start)[1], BLOCK, axis=1)
    for n, s_CM in enumerate(s_nCM)
  ]
  return jnp.stack(parts)


def _corner(n, start):
  """Returns the row and the column, a margin before it, of the n-th block's scores."""
  return n * BLOCK, start + (n + 1) * BLOCK
