"""Block mask: tiles that are not fully masked, and tiles that are bands.

All of it is a function of coordinates, so it has no gradient, is the same for all heads
and stays out of the batch when seeds are mapped. It takes L M steps of a few integer
operations, a small part of the time of one head's scores, and memory linear in L.
"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.attention.cores.blockwise.blocks import Blocks


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BlockMask:
  """The tiles to visit. Until sequences are mapped, arrays start with the batch axis of
  the coordinates.

  keys_of_qk        for each block of queries the blocks of keys it attends to, first
  keys_count_q      how many those are
  queries_of_kq     for each block of keys the blocks of queries attending to it, first
  queries_count_k   how many those are
  band_qk           True where all unmasked pairs are `shift` + i - j apart
  bands             True where that is so in all visited tiles

  >>> import jax
  >>> import transformer_jax as tj
  >>> from transformer_jax.attention.cores.blockwise import block_mask, blocks
  >>> at, twos = tj.positions.coords.consecutive(1, 8), blocks.Blocks(length=8, size=2)
  >>> window = tj.attention.BoundVariant(tj.attentions.build("window(3)"))
  >>> make = jax.jit(block_mask.make_block_mask, static_argnums=(3, 4))
  >>> made, _, _ = make(window, at, at, twos, twos)
  >>> print(made.keys_count_q)
  [[1 2 2 2]]
  >>> print(made.keys_of_qk[0, :, :2])
  [[0 3]
   [0 1]
   [1 2]
   [2 3]]
  """

  keys_of_qk: jax.Array
  keys_count_q: jax.Array
  queries_of_kq: jax.Array
  queries_count_k: jax.Array
  band_qk: jax.Array
  bands: jax.Array


def make_block_mask(
  variant, q_at, k_at, queries: Blocks, keys: Blocks, at_once: bool = False
):
  """Returns the block mask, the `shift` of the first band, and key_count_BL.

  variant      the bound variant, whose mask is used
  q_at, k_at   coordinates of queries and keys, padded to whole blocks
  queries      blocks of queries
  keys         blocks of keys
  at_once      whether a tile is visited for all texts where one needs it
  """
  least_qBk, most_qBk, key_count_qBL = _shifts(variant, q_at, k_at, queries, keys)
  least_Bqk, most_Bqk = jnp.moveaxis(least_qBk, 0, 1), jnp.moveaxis(most_qBk, 0, 1)
  any_Bqk = least_Bqk <= most_Bqk
  even_Bqk = least_Bqk == most_Bqk
  shift = least_Bqk.reshape(-1)[jnp.argmax(even_Bqk)]
  band_Bqk = even_Bqk & (least_Bqk == shift)
  if at_once:
    band_Bqk = (band_Bqk | ~any_Bqk).all(0, keepdims=True)
    any_Bqk = any_Bqk.any(0, keepdims=True)
  any_Bkq = jnp.swapaxes(any_Bqk, 1, 2)
  block_mask = BlockMask(
    _places(any_Bqk),
    any_Bqk.sum(-1),
    _places(any_Bkq),
    any_Bkq.sum(-1),
    band_Bqk,
    (band_Bqk | ~any_Bqk).all((1, 2)),
  )
  key_count_BL = jnp.moveaxis(key_count_qBL, 0, 1)
  key_count_BL = key_count_BL.reshape(key_count_BL.shape[0], q_at.order_BL.shape[1])
  return block_mask, jnp.where(even_Bqk.any(), shift, 0), key_count_BL


def _shifts(variant, q_at, k_at, queries: Blocks, keys: Blocks):
  """Returns (least_qBk, most_qBk, key_count_qBL), by blocks of queries.

  The shift of a pair is the distance of positions minus the distance of indices; least
  and most are over the unmasked pairs of a tile. Arguments as in `make_block_mask`.
  """
  L, M = q_at.order_BL.shape[1], k_at.order_BL.shape[1]
  ahead_BL = q_at.pos_BL - jnp.arange(L, dtype=q_at.pos_BL.dtype)
  ahead_BM = k_at.pos_BL - jnp.arange(M, dtype=k_at.pos_BL.dtype)
  limits = jnp.iinfo if jnp.issubdtype(ahead_BL.dtype, jnp.integer) else jnp.finfo
  largest = limits(ahead_BL.dtype).max

  def cut(x):
    x = x.reshape(x.shape[0], queries.count, queries.size, *x.shape[2:])
    return jnp.moveaxis(x, 1, 0)

  def tiles(x_BLM):
    x = x_BLM.reshape(*x_BLM.shape[:2], keys.count, keys.size)
    return jnp.moveaxis(x, 2, 1)

  def row(block):
    q_at, ahead_BL = block
    mask_BLM = variant.mask(q_at, k_at)
    shift_BLM = ahead_BL[:, :, None] - ahead_BM[:, None, :]
    least_Bk = tiles(jnp.where(mask_BLM, shift_BLM, largest)).min((2, 3))
    most_Bk = tiles(jnp.where(mask_BLM, shift_BLM, -largest)).max((2, 3))
    return least_Bk, most_Bk, mask_BLM.sum(-1)

  return jax.lax.map(row, (jax.tree.map(cut, q_at), cut(ahead_BL)))


def _places(any_Bqk: jax.Array) -> jax.Array:
  """Returns the indices of true entries on the last axis, in order."""
  count_Bqk = jnp.cumsum(any_Bqk, axis=-1, dtype=jnp.int32)
  nth_k1 = jnp.arange(any_Bqk.shape[-1])[:, None]
  place_Bqk = (count_Bqk[:, :, None] <= nth_k1).sum(-1, dtype=jnp.int32)
  return jnp.minimum(place_Bqk, any_Bqk.shape[-1] - 1)
