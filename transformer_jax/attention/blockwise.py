"""Attention in tiles with a running softmax: memory linear in the length.

Rabe and Staats, 2021, https://arxiv.org/abs/2112.05682. Each tile calls the encoding's
own hooks and differentiates them, so every encoding trains here, parameters and all,
without an array of [L, M]. A bias of the distance alone is one table for all tiles.
"""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.attention import bands, blocks, tiles
from transformer_jax.attention.base import (
  PLAIN,
  cores,
  repeat_heads,
  require,
  whole_rows,
)
from transformer_jax.attention.plan import make_plan
from transformer_jax.attention.scores import Scheme


@cores.register("blockwise")
@dataclasses.dataclass(frozen=True)
class Blockwise:
  """Visits tiles of queries and keys, but for those in which nothing is seen.

  block   queries and keys in a tile; 0: chosen from the shapes
  """

  block: int = 0

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
    (_, L, H, K), M = q_BLHK.shape, k_BMGK.shape[1]
    # An encoding that turns each head in its own way has repeated the keys.
    G = max(k_BMGK.shape[2], v_BMGE.shape[2])
    k_BMGK, v_BMGE = repeat_heads(k_BMGK, G), repeat_heads(v_BMGE, G)
    scale = K**-0.5 if scale is None else scale
    fixed = isinstance(scale, int | float)  # or an array, which may be learned
    cut = blocks.choose(L, M, H, G, self.block)
    q_at, k_at = cut.queries.pad_at(q_at), cut.keys.pad_at(k_at)
    plan, shift, seen_BL = make_plan(rule, q_at, k_at, cut.queries, cut.keys)
    weights = {
      "position": cut.params(position.params),
      "rule": cut.params(rule.params),
      **cut.params(_by_head(H, scale_H=None if fixed else scale, extra_H=rule.extra())),
      **_biases(position, q_at, k_at, shift, cut, q_BLHK.size),
    }
    queries = tiles.Queries(
      cut.vectors(q_BLHK, cut.queries),
      *cut.places(q_at, cut.queries),
      cut.queries.cut(seen_BL)[None],
    )
    k, v = (cut.vectors(x, cut.keys) for x in (k_BMGK, v_BMGE))
    keys = tiles.Keys(k, v, *cut.places(k_at, cut.keys))
    scheme = Scheme(position.encoding, rule.variant, scale if fixed else None)
    attend = lambda tree: tiles.attend(scheme, *tree)
    whole = weights, queries, keys, jax.tree.map(lambda x: x[None], plan)
    out = blocks.each(lambda tree: blocks.each(attend, tree), whole)
    return cut.join(out).astype(v_BMGE.dtype)

  def refusal(self, encoding, variant=PLAIN.variant, drop=False):
    return whole_rows("blockwise", encoding, variant, drop)


def _by_head(H, **numbers):
  """Returns what each head has of its own besides parameters."""
  return {n: jnp.broadcast_to(x, H) for n, x in numbers.items() if x is not None}


def _biases(position, q_at, k_at, shift, cut, size):
  """Returns biases that are worth computing before the tiles are visited.

  Those of the distance alone are a table. Others that all sequences share are computed
  once if they take no more room than the queries.
  """
  encoding, H = position.encoding, cut.H
  if encoding.bias is None or encoding.overrides("score"):
    return {}
  queries, keys = cut.queries, cut.keys
  L, M = queries.count * queries.size, keys.count * keys.size
  if encoding.relative:
    table_HN = bands.table(position, shift, L, M)
    return cut.params({"table_HN": jnp.broadcast_to(table_HN, (H, L + M - 1))})
  shared = q_at.pos_BL.shape[0] == k_at.pos_BL.shape[0] == 1
  if not shared or H * L * M > size:
    return {}
  bias_HLM = position.bias(q_at.pos_BL, k_at.pos_BL)[0]
  bias_HLM = jnp.broadcast_to(bias_HLM, (H, L, M))
  tiles_of = lambda x: x.reshape(-1, queries.count, queries.size, keys.count, keys.size)
  bias = cut.by_group(tiles_of(bias_HLM), 0)
  return {"bias_qkHLM": bias.transpose(0, 2, 4, 1, 3, 5)[:, None]}
