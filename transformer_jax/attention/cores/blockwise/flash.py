"""Running softmax over the tiles of one group of heads of one sequence, with gradients.

The backward pass recomputes each tile, as in Dao et al., 2022,
https://arxiv.org/abs/2205.14135. No matrix product here has a transposed left side:
XLA's CPU product is two to five times slower with one. So vectors are transposed once,
before the loops, and gradients of keys and values are summed as their transposes.

Axes: u key heads of the group; r rows, the queries of a block for each query head of
one key head; H query heads; q and k blocks; L and M tokens in a block.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from transformer_jax.attention.cores.blockwise.block_mask import BlockMask
from transformer_jax.attention.cores.blockwise.scores import (
  BIASES,
  TileIndex,
  TileScore,
  add,
  add_to,
  zeros,
)
from transformer_jax.attention.cores.blockwise.tile_arrays import Keys, Queries
from transformer_jax.attention.variants.bound_variant import MASKED

FLOOR = MASKED / 2  # start of running maxima, far above masked scores


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def attend(
  tile_score: TileScore,
  weights: dict,
  queries: Queries,
  keys: Keys,
  block_mask: BlockMask,
):
  """Returns o_qurE, float32.

  tile_score   the encoding and the variant
  weights      parameters and biases of the heads, as in `TileScore`
  queries      blocks of queries
  keys         blocks of keys and values
  block_mask   tiles to visit
  """
  return _forward(tile_score, weights, queries, keys, block_mask)[0]


def _forward(tile_score, weights, queries, keys, block_mask):
  """Returns outputs o_qurE, the highest scores max_qHL and the softmax's sum_qHL."""
  queries, keys = queries.narrow(tile_score.dtype), keys.narrow(tile_score.dtype)
  kT_kuKM = _transposed(keys.k)
  u, r = queries.q.shape[1:3]
  L = queries.at.order_BL.shape[-1]
  H = u * r // L
  start = _start(weights, H, L, keys.v.shape[-1])

  def row(i):
    query = _pick(queries, i)

    def tile(n, carry):
      j = block_mask.keys_of_qk[i, n]
      key = _pick(keys, j)
      tile_index = _tile_index(block_mask, i, j, query, key)
      raw_HLM = _product(query.q, kT_kuKM[j], H)
      bias = tile_score.bias(weights, tile_index)
      s_HLM = tile_score.score(
        weights, raw_HLM, bias, query.vectors, key.vectors, tile_index
      )
      max_HL, sum_HL, out_HLE = carry
      if tile_score.softmax:
        new_HL = jnp.maximum(max_HL, s_HLM.max(-1))
        w_HLM, shrink_HL = jnp.exp(s_HLM - new_HL[..., None]), jnp.exp(max_HL - new_HL)
        sum_HL = sum_HL * shrink_HL + w_HLM.sum(-1)
        max_HL, out_HLE = new_HL, out_HLE * shrink_HL[..., None]
      else:
        w_HLM = tile_score.pointwise(weights["variant"], s_HLM, tile_index)
      out_HLE += _product(_rows(w_HLM, u).astype(key.v.dtype), key.v, H)
      if tile_score.encoding.overrides("values"):
        out_HLE += tile_score.values(weights["position"], w_HLM, tile_index)
      return max_HL, sum_HL, out_HLE

    end = jax.lax.fori_loop(0, block_mask.keys_count_q[i], tile, start)
    max_HL, sum_HL, out_HLE = end
    if tile_score.softmax:
      sum_HL = jnp.where(sum_HL == 0, 1.0, sum_HL)
      out_HLE /= sum_HL[..., None]
    return _rows(out_HLE, u), max_HL, sum_HL

  return jax.lax.map(row, jnp.arange(len(queries.q)))


def _start(weights, H, L, E):
  """Returns (max_HL, sum_HL, out_HLE) before the first tile, a sink included."""
  sink_logit_HL = jnp.broadcast_to(
    weights.get("sink_logit_H", jnp.full(H, FLOOR))[:, None], (H, L)
  )
  sum_HL = jnp.where(sink_logit_HL > FLOOR, 1.0, 0.0)
  return sink_logit_HL.astype(jnp.float32), sum_HL, jnp.zeros((H, L, E), jnp.float32)


def _save(tile_score, weights, queries, keys, block_mask):
  found = _forward(tile_score, weights, queries, keys, block_mask)
  return found[0], (weights, queries, keys, block_mask, *found)


def _backward(tile_score, residuals, d_out_qurE):
  """Returns gradients; recomputes the tiles, column by column."""
  weights, whole_queries, whole_keys, block_mask, out_qurE, max_qHL, sum_qHL = residuals
  queries = whole_queries.narrow(tile_score.dtype)
  keys = whole_keys.narrow(tile_score.dtype)
  if tile_score.softmax:  # tiles then hold weights that are not divided yet
    d_out_qurE /= sum_qHL.reshape(*out_qurE.shape[:3], 1)
  # Row sums of dO * O (Dao et al., section B.2).
  delta_qHL = jnp.sum(out_qurE * d_out_qurE, -1).reshape(max_qHL.shape)
  d_out_qurE = d_out_qurE.astype(keys.v.dtype)
  transposes = _transposed(queries.q), _transposed(d_out_qurE)
  rows = queries, d_out_qurE, max_qHL, delta_qHL, *transposes
  columns = keys, _transposed(keys.k), _transposed(keys.v)

  def column(carry, j):
    one = _pick(columns, j)

    def tile(n, carry):
      i = block_mask.queries_of_kq[j, n]
      row = _pick(rows, i)
      tile_index = _tile_index(block_mask, i, j, row[0], one[0])
      return _backward_tile(tile_score, weights, row, one, tile_index, carry)

    start = (*carry, zeros((one[1], one[2], one[0].vectors)))
    count = block_mask.queries_count_k[j]
    *carry, (d_kT, d_vT, (d_k, d_data)) = jax.lax.fori_loop(0, count, tile, start)
    return tuple(carry), (d_k + _transposed(d_kT), _transposed(d_vT), d_data)

  start = zeros((weights, queries.vectors))
  (d_weights, d_q), d_k = jax.lax.scan(column, start, jnp.arange(len(keys.k)))
  if "sink_logit_H" in weights:
    chance_qHL = jnp.exp(weights["sink_logit_H"][:, None] - max_qHL)
    d_weights["sink_logit_H"] = -jnp.sum(chance_qHL * delta_qHL, (0, 2))
  d_q, d_q_data = _as_types(d_q, whole_queries.vectors)
  d_k, d_v, d_k_data = _as_types(d_k, (whole_keys.k, whole_keys.v, keys.data))
  d_queries = dataclasses.replace(_no_gradient(queries), q=d_q, data=d_q_data)
  d_keys = dataclasses.replace(_no_gradient(keys), k=d_k, v=d_v, data=d_k_data)
  return _as_types(d_weights, weights), d_queries, d_keys, None


attend.defvjp(_save, _backward)


def _backward_tile(tile_score, weights, row, column, tile_index, carry):
  """Adds a tile's gradients to those of weights, of all queries and of its keys.

  tile_score, weights   as in `attend`
  row                   block of queries with d_out, max, delta and transposes
  column                block of keys and values with transposes
  tile_index            index of the tile
  carry                 gradients so far: (of weights, of queries, of this column)
  """
  query, d_out_urE, max_HL, delta_HL, qT_uKr, d_outT_uEr = row
  key, kT_uKM, vT_uEM = column
  d_weights, d_queries, (d_kT_uKM, d_vT_uEM, d_key) = carry
  (H, _), u = max_HL.shape, len(key.k)
  params = {name: x for name, x in weights.items() if name not in BIASES}
  raw_HLM = _product(query.q, kT_uKM, H)
  d_w_HLM = _product(d_out_urE, vT_uEM, H)
  score = functools.partial(tile_score.score, tile_index=tile_index)
  bias = tile_score.bias(weights, tile_index)
  s_HLM, pull = jax.vjp(score, params, raw_HLM, bias, query.vectors, key.vectors)
  statistics = max_HL, delta_HL
  w_HLM, d_s_HLM, d_weights = _through_weights(
    tile_score, weights, s_HLM, d_w_HLM, d_out_urE, statistics, tile_index, d_weights
  )
  d_params, d_raw_HLM, d_bias, d_query, d_more_key = pull(d_s_HLM)
  d_weights = d_weights | add({name: d_weights[name] for name in params}, d_params)
  d_weights = tile_score.pull_bias(weights, tile_index, d_bias, d_weights)
  d_raw_urM = _rows(d_raw_HLM, u).astype(key.k.dtype)
  d_q_urK = _matmul(d_raw_urM, key.k)
  d_kT_uKM += _matmul(qT_uKr, d_raw_urM)
  d_vT_uEM += _matmul(d_outT_uEr, _rows(w_HLM, u).astype(key.v.dtype))
  d_data = d_queries[1]
  if tile_score.reads:
    d_q_urK += d_query[0].astype(jnp.float32)
    d_data = jax.tree.map(lambda a, d: a.at[tile_index.i].add(d), d_data, d_query[1])
    d_key = add(d_key, d_more_key)
  d_queries = d_queries[0].at[tile_index.i].add(d_q_urK), d_data
  return d_weights, d_queries, (d_kT_uKM, d_vT_uEM, d_key)


def _through_weights(
  tile_score, weights, s_HLM, d_w_HLM, d_out_urE, row, tile_index, d_weights
):
  """Returns weights w_HLM, gradients d_s_HLM of the scores, and those of `weights`.

  tile_score, weights   as in `attend`
  s_HLM                 scores
  d_w_HLM               gradients of the weights from the product with values
  d_out_urE             gradients of the outputs
  row                   (max_HL, delta_HL) of the block of queries
  tile_index            index of the tile
  d_weights             gradients of `weights` so far
  """
  max_HL, delta_HL = row
  if tile_score.softmax:
    w_HLM = jnp.exp(s_HLM - max_HL[..., None])
  else:
    pointwise = functools.partial(tile_score.pointwise, tile_index=tile_index)
    w_HLM, pull_weights = jax.vjp(pointwise, weights["variant"], s_HLM)
  if tile_score.encoding.overrides("values"):
    values = functools.partial(tile_score.values, tile_index=tile_index)
    more_HLE, pull_values = jax.vjp(values, weights["position"], w_HLM)
    d_more_HLE = d_out_urE.reshape(more_HLE.shape).astype(more_HLE.dtype)
    d_position, d_more_HLM = pull_values(d_more_HLE)
    d_weights, d_w_HLM = add_to(d_weights, "position", d_position), d_w_HLM + d_more_HLM
  if tile_score.softmax:
    d_s_HLM = w_HLM * (d_w_HLM - delta_HL[..., None])
  else:
    d_variant, d_s_HLM = pull_weights(d_w_HLM)
    d_weights = add_to(d_weights, "variant", d_variant)
  return w_HLM, d_s_HLM, d_weights


def _as_types(grads, like):
  """Returns gradients in the types of the arrays of a tree like theirs."""
  return jax.tree.map(lambda d, x: d.astype(x.dtype), grads, like)


def _no_gradient(tree):
  """Returns the tree with None instead of each array."""
  return jax.tree.map(lambda x: None, tree)


def _tile_index(block_mask, i, j, query, key):
  band, blocks = block_mask.band_qk[i, j], len(block_mask.band_qk)
  return TileIndex(i, j, query.at, key.at, query.key_count_BL, band, blocks)


def _matmul(a, b):
  return jnp.matmul(a, b, preferred_element_type=jnp.float32)


def _product(x_urK, y_uKM, H):
  """Returns products by query head, [H, L, M]."""
  return _matmul(x_urK, y_uKM).reshape(H, -1, y_uKM.shape[-1])


def _rows(x_HLM, u):
  """Returns x_urM: the query heads of each key head are concatenated to rows."""
  return x_HLM.reshape(u, -1, x_HLM.shape[-1])


def _transposed(x):
  return jnp.swapaxes(x, -1, -2)


def _pick(tree: Any, i):
  """Returns entry i of each array.

  XLA on a CPU converts bfloat16 to float32 and back to read it, but not its bits.
  """

  def pick(x):
    if x.dtype != jnp.bfloat16:
      return jax.lax.dynamic_index_in_dim(x, i, 0, False)
    bits = jax.lax.bitcast_convert_type(x, jnp.uint16)
    part = jax.lax.dynamic_index_in_dim(bits, i, 0, False)
    return jax.lax.bitcast_convert_type(part, x.dtype)

  return jax.tree.map(pick, tree)
