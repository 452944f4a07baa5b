"""Attention in tiles with a running softmax: memory linear in the length.

Rabe and Staats, 2021, https://arxiv.org/abs/2112.05682. Each tile calls the hooks of
the encoding and differentiates them, so that the parameters of every encoding train
without an array of [L, M]. A bias of the distance alone is one table for all tiles.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from transformer_jax.attention.cores.base import (
  Core,
  cores,
  repeat_heads,
  tiled_refusal,
)
from transformer_jax.attention.cores.blockwise import blocks, flash, toeplitz
from transformer_jax.attention.cores.blockwise.block_mask import make_block_mask
from transformer_jax.attention.cores.blockwise.scores import TileScore
from transformer_jax.attention.cores.blockwise.tile_arrays import Keys, Queries
from transformer_jax.attention.cores.per_device import on_each_device
from transformer_jax.attention.variants.bound_variant import PLAIN
from transformer_jax.devices import platform


@cores.register("blockwise")
@dataclasses.dataclass(frozen=True)
class Blockwise(Core):
  """Visits tiles of queries and keys, but for those that are fully masked.

  block     queries and keys in a tile; 0: chosen from the shapes
  at_once   whether all texts and heads are computed at once, tile after tile, as
            accelerators need it; None: on accelerators. A CPU computes one text and
            group of heads after another, whose tiles fit a cache

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> at, zero_BLHK = tj.positions.coords.consecutive(1, 4), np.zeros((1, 4, 1, 2))
  >>> v_BMHE = np.arange(4.0).reshape(1, 4, 1, 1)
  >>> none = tj.positions.Bound(tj.positions.build("none"))
  >>> blockwise = jax.jit(tj.cores.build("blockwise(block=2)"))
  >>> print(blockwise(zero_BLHK, zero_BLHK, v_BMHE, at, at, none).ravel())
  [0.  0.5 1.  1.5]
  """

  block: int = 0
  at_once: bool | None = None

  @on_each_device
  def attend(self, q_BLHK, k_BMGK, v_BMGE, context):
    (_, L, H, _), M = q_BLHK.shape, k_BMGK.shape[1]
    # An encoding that rotates each head differently has repeated the keys.
    G = max(k_BMGK.shape[2], v_BMGE.shape[2])
    k_BMGK, v_BMGE = repeat_heads(k_BMGK, G), repeat_heads(v_BMGE, G)
    variant, scale = context.variant, context.scale
    position, q_at, k_at = context.position.prepare(context.q_at, context.k_at)
    fixed = isinstance(scale, int | float)  # or an array, which may be learned
    encoding = position.encoding
    score = encoding.overrides("score")
    hooked = score or not (encoding.relative or encoding.bias is None)
    hooked |= variant.variant.overrides("dot")
    at_once = platform() != "cpu" if self.at_once is None else self.at_once
    cut = blocks.choose(L, M, H, G, self.block, hooked, at_once)
    q_at, k_at = cut.queries.pad_at(q_at), cut.keys.pad_at(k_at)
    block_mask, shift, key_count_BL = make_block_mask(
      variant, q_at, k_at, cut.queries, cut.keys, at_once
    )
    weights = {
      "position": cut.params(position.params),
      "variant": cut.params(variant.params),
      **cut.params(
        _by_head(H, scale_H=None if fixed else scale, sink_logit_H=variant.sink_logit())
      ),
      **_biases(position, q_at, k_at, block_mask, shift, cut, q_BLHK.size),
    }
    queries = Queries(
      wide(cut.vectors(q_BLHK, cut.queries)),
      *cut.places(q_at, cut.queries),
      cut.queries.cut(key_count_BL)[None],
    )
    k, v = (wide(cut.vectors(x, cut.keys)) for x in (k_BMGK, v_BMGE))
    keys = Keys(k, v, *cut.places(k_at, cut.keys))
    one_scale = scale if fixed else None
    tile_score = TileScore(position.encoding, variant.variant, one_scale, v_BMGE.dtype)
    attend = functools.partial(_attend_group, tile_score)
    whole = weights, queries, keys, jax.tree.map(lambda x: x[None], block_mask)
    each = functools.partial(blocks.each, at_once=at_once)
    out = each(lambda tree: each(attend, tree), whole)
    return cut.join(out).astype(v_BMGE.dtype)

  def refusal(self, encoding, variant=PLAIN.variant, dropout=False):
    return tiled_refusal("blockwise", encoding, variant, dropout)


def _attend_group(tile_score, tree):
  """Returns the outputs of one group of heads of one sequence."""
  weights, queries, keys, block_mask = tree
  return flash.attend(tile_score, weights, queries, keys, block_mask)


def wide(x: jax.Array) -> jax.Array:
  """Returns bfloat16 as float32 on CPUs; loops over tiles then write its gradient.

  XLA on a CPU converts a whole array of bfloat16 to write a part of it.
  """
  half = x.dtype == jnp.bfloat16 and platform() == "cpu"
  return x.astype(jnp.float32) if half else x


def _by_head(H, **numbers):
  """Returns the given numbers as arrays with one entry per head, but for None."""
  return {n: jnp.broadcast_to(x, H) for n, x in numbers.items() if x is not None}


def _biases(position, q_at, k_at, block_mask, shift, cut, size):
  """Returns biases that are computed before the tiles are visited.

  Biases of the distance alone are a table. Biases that all sequences share are computed
  once for all tiles if they take no more memory than the queries.

  position     the bound encoding
  q_at, k_at   padded coordinates
  block_mask   the block mask, which marks bands
  shift        distance of positions minus distance of indices, in a band
  cut          blocks and groups of heads
  size         number of entries of the queries
  """
  encoding, H = position.encoding, cut.H
  if encoding.bias is None or encoding.overrides("score"):
    return {}
  L, M = q_at.pos_BL.shape[1], k_at.pos_BL.shape[1]

  def heads(x):
    return jnp.broadcast_to(x, (H, *x.shape[1:]))

  # Recomputed for the gradient: a hook's residuals may be much larger than the bias.
  every = jax.checkpoint(lambda: heads(position.bias(q_at.pos_BL, k_at.pos_BL)[0]))
  shared = q_at.pos_BL.shape[0] == k_at.pos_BL.shape[0] == 1
  shared = shared and H * L * M <= size
  if encoding.relative:
    table_HN = heads(toeplitz.table(position, shift, L, M))
    if not shared:
      return cut.params({"table_HN": table_HN})
    bias_HLM = jax.lax.cond(
      block_mask.bands[0], lambda: toeplitz.spread(table_HN, L), every
    )
  elif shared:
    bias_HLM = every()
  else:
    return {}
  return {"bias_qkHLM": cut.tiles(bias_HLM)[:, None]}
