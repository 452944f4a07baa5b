"""Attention in tiles with a running softmax: memory linear in the length.

Rabe and Staats, 2021, https://arxiv.org/abs/2112.05682; the backward pass recomputes
tiles as in Dao et al., 2022, https://arxiv.org/abs/2205.14135. Each tile calls the
encoding's own hooks and differentiates them, so every encoding trains here, parameters
and all, without an array of [L, M].
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from transformer_jax.attention.base import (
  PLAIN,
  cores,
  mix,
  repeat_heads,
  require,
  tile_scores,
  whole_rows,
)
from transformer_jax.attention.rule import MASKED, visible
from transformer_jax.positions import Bound, coords


@cores.register("blockwise")
@dataclasses.dataclass(frozen=True)
class Blockwise:
  """Visits tiles of queries and keys and skips those in which nothing is seen.

  block   queries and keys in a tile
  """

  block: int = 128

  def __call__(
    self,
    q_BLHK,
    k_BMGK,
    v_BMGE,
    q_at,
    k_at,
    position,
    scale=None,
    rule=PLAIN,
    drop=None,
  ):
    require(self, position, rule, drop)
    k_BMHK, v_BMHK = (repeat_heads(x, q_BLHK.shape[2]) for x in (k_BMGK, v_BMGE))
    L = q_BLHK.shape[1]
    scale = q_BLHK.shape[-1] ** -0.5 if scale is None else scale
    static = position.encoding, scale
    queries = _blocks(self.block, q_BLHK, q_at)
    keys = _blocks(self.block, (k_BMHK, v_BMHK), k_at)
    out_nBLHK = _flash(static, position.params, queries, keys)
    return jnp.concatenate(out_nBLHK, axis=1)[:, :L].astype(v_BMHK.dtype)

  def refusal(self, encoding, variant=PLAIN.variant, drop=False):
    return whole_rows("blockwise", encoding, variant, drop)


def _blocks(size, arrays, at):
  """Cuts [B, L, ...] into stacked blocks (n, B, size, ...); padding is no token."""
  L = at.order_BL.shape[1]
  size = min(size, L)
  extra = -L % size

  def cut(x, fill=0):
    pads = [(0, extra) if axis == 1 else (0, 0) for axis in range(x.ndim)]
    x = jnp.pad(x, pads, constant_values=fill)
    return jnp.moveaxis(x.reshape(x.shape[0], -1, size, *x.shape[2:]), 1, 0)

  where = coords.Coords(
    cut(at.order_BL, -1), cut(at.pos_BL), cut(at.sees_BL, -1), cut(at.segment_BL)
  )
  return jax.tree.map(cut, arrays), jax.tree.map(cut, at.data), where


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _flash(static, params, queries, keys):
  return _forward(static, params, queries, keys)[0]


def _scores(static, params, query, key, seen_BLM):
  """Returns masked scores of one tile; `query` and `key` are (vectors, data, where)."""
  encoding, scale = static
  (q, q_data, q_at), (k, k_data, k_at) = query, key
  q_at, k_at = q_at.replace(data=q_data), k_at.replace(data=k_data)
  position = Bound(encoding, params)
  s_BHLM = tile_scores(q, k, q_at, k_at, position, scale, seen_BLM)
  return jnp.where(seen_BLM[:, None], s_BHLM, MASKED)


def _mix(static, params, w_BHLM, v_BMHK, q_at, k_at):
  return mix(w_BHLM, v_BMHK, q_at.pos_BL, k_at.pos_BL, Bound(static[0], params))


def _heads_last(x_BHL):
  return jnp.moveaxis(x_BHL, 1, 2)[..., None]


def _forward(static, params, queries, keys):
  """Returns outputs and log-sums of exponentials, both stacked by query block."""

  def row(query):
    q_BLHK, _, q_at = query
    B, L, H, _ = q_BLHK.shape

    def tile(carry, key):
      (k, v), data, k_at = key
      seen_BLM = visible(q_at, k_at)

      def visit(carry):
        top_BHL, sum_BHL, out_BLHK = carry
        s_BHLM = _scores(static, params, query, (k, data, k_at), seen_BLM)
        new_BHL = jnp.maximum(top_BHL, s_BHLM.max(-1))
        w_BHLM = jnp.exp(s_BHLM - new_BHL[..., None]) * seen_BLM[:, None]
        shrink_BHL = jnp.exp(top_BHL - new_BHL)
        out_BLHK = out_BLHK * _heads_last(shrink_BHL)
        out_BLHK += _mix(static, params, w_BHLM, v, q_at, k_at)
        return new_BHL, sum_BHL * shrink_BHL + w_BHLM.sum(-1), out_BLHK

      return jax.lax.cond(jnp.any(seen_BLM), visit, lambda carry: carry, carry), None

    zero_BHL = jnp.zeros((B, H, L), jnp.float32)
    width = keys[0][1].shape[-1]
    start = zero_BHL + MASKED, zero_BHL, jnp.zeros((B, L, H, width), jnp.float32)
    (top_BHL, sum_BHL, out_BLHK), _ = jax.lax.scan(tile, start, keys)
    sum_BHL = jnp.where(sum_BHL == 0, 1.0, sum_BHL)
    return out_BLHK / _heads_last(sum_BHL), top_BHL + jnp.log(sum_BHL)

  return jax.lax.map(row, queries)


def _flash_forward(static, params, queries, keys):
  out, lse = _forward(static, params, queries, keys)
  return out, (params, queries, keys, out, lse)


def _flash_backward(static, kept, d_out):
  """Visits the tiles again, by columns, and pulls the gradient back through each."""
  params, queries, keys, out, lse = kept
  share = jnp.sum(out * d_out, -1)  # what the softmax's normalizer takes off each row
  rows = queries, lse, jnp.moveaxis(share, -1, 2), d_out

  def column(carry, key):
    d_params, d_rows = carry
    start = d_params, _zeros(key[:2])
    (d_params, d_column), d_more = jax.lax.scan(
      lambda carry, row: _backward_tile(static, params, row, key, carry), start, rows
    )
    return (d_params, _add(d_rows, d_more)), d_column

  start = _zeros(params), _zeros(queries[:2])
  (d_params, d_rows), d_columns = jax.lax.scan(column, start, keys)
  like = lambda d, x: jax.tree.map(lambda a, b: a.astype(b.dtype), d, x)
  d_queries, d_keys = like(d_rows, queries[:2]), like(d_columns, keys[:2])
  return like(d_params, params), (*d_queries, None), (*d_keys, None)


def _backward_tile(static, params, row, key, carry):
  """Adds a tile's gradients of parameters and keys; returns those of its queries."""
  (q, q_data, q_at), lse_BHL, share_BHL, d_out_BLHK = row
  (k, v), data, k_at = key
  seen_BLM = visible(q_at, k_at)

  def scores(params, q, q_data, k, data):
    query, key = (q, q_data, q_at), (k, data, k_at)
    return _scores(static, params, query, key, seen_BLM)

  def mixture(params, w_BHLM, v):
    return _mix(static, params, w_BHLM, v, q_at, k_at)

  def visit(carry):
    s_BHLM, pull_scores = jax.vjp(scores, params, q, q_data, k, data)
    w_BHLM = jnp.exp(s_BHLM - lse_BHL[..., None]) * seen_BLM[:, None]
    _, pull_mixture = jax.vjp(mixture, params, w_BHLM, v)
    d_params_by_mixture, d_w_BHLM, d_v = pull_mixture(d_out_BLHK)
    d_s_BHLM = w_BHLM * (d_w_BHLM - share_BHL[..., None])
    d_params_by_scores, d_q, d_q_data, d_k, d_data = pull_scores(d_s_BHLM)
    d_params, d_column = carry
    d_params = _add(d_params, d_params_by_mixture, d_params_by_scores)
    return (d_params, _add(d_column, ((d_k, d_v), d_data))), _add((d_q, d_q_data))

  skip = lambda carry: (carry, _zeros((q, q_data)))
  return jax.lax.cond(jnp.any(seen_BLM), visit, skip, carry)


def _zeros(tree):
  return jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), tree)


def _add(*trees):
  """Adds trees in float32."""
  return jax.tree.map(lambda *x: sum(y.astype(jnp.float32) for y in x), *trees)


_flash.defvjp(_flash_forward, _flash_backward)
