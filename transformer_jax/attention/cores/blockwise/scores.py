"""Scores of a tile, and the gradients of their parts."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from transformer_jax.attention.cores.blockwise import toeplitz
from transformer_jax.attention.cores.blockwise.blocks import TokenData
from transformer_jax.attention.variants.base import Variant
from transformer_jax.attention.variants.bound_variant import (
  MASKED,
  BoundVariant,
  by_heads,
)
from transformer_jax.positions import Bound, Coords, PositionalEncoding
from transformer_jax.positions.lifting import by_head

TileWeights = dict[str, Any]
BIASES = ("table_HN", "bias_qkHLM")


@dataclasses.dataclass(frozen=True)
class TileIndex:
  """Index of a tile: block numbers and coordinates of both sides.

  key_count_BL   number of keys each query attends to, in all tiles
  band           True where the bias is a band of the table
  blocks         number of blocks of queries

  >>> from transformer_jax.attention.cores.blockwise.scores import TileIndex
  >>> from transformer_jax.positions import coords
  >>> at = coords.consecutive(1, 4)
  >>> TileIndex(0, 1, at, at, key_count_BL=None, band=None, blocks=2).window()
  (8, 7)
  """

  i: jax.Array
  j: jax.Array
  q_at: Coords
  k_at: Coords
  key_count_BL: jax.Array
  band: jax.Array
  blocks: int

  def window(self) -> tuple[jax.Array, int]:
    """Returns the start of a tile's distances in the table, and their number."""
    bq, bk = self.q_at.order_BL.shape[1], self.k_at.order_BL.shape[1]
    return self.j * bk + (self.blocks - 1 - self.i) * bq, bq + bk - 1


@dataclasses.dataclass(frozen=True)
class TileScore:
  """Scores of an encoding and a variant in tiles of some heads; batch axes are 1.

  `weights`, an argument of the methods, has these entries; the last four are optional:

  position       parameters of the encoding, for these heads
  variant        parameters of the variant, for these heads
  scale_H        scale of each head
  sink_logit_H   sink logit of each head
  table_HN       bias of each distance
  bias_qkHLM     bias of each tile

  scale   number on dot products; None: scale_H of the weights
  dtype   type of vectors in products; arguments and gradients may be float32

  >>> import transformer_jax as tj
  >>> from transformer_jax.attention.cores.blockwise.scores import TileScore
  >>> alibi = TileScore(tj.positions.build("alibi"), tj.Variant(), scale=0.125)
  >>> shaw = TileScore(tj.positions.build("shaw"), tj.Variant(), scale=0.125)
  >>> (alibi.biased, alibi.reads), (shaw.biased, shaw.reads)
  ((True, False), (False, True))
  """

  encoding: PositionalEncoding
  variant: Variant
  scale: float | None
  dtype: jnp.dtype = jnp.dtype("float32")

  @property
  def softmax(self) -> bool:
    return not self.variant.overrides("pointwise")

  @property
  def multiplies(self) -> bool:
    """True when raw scores are dot products of queries and keys."""
    return not (self.variant.overrides("dot") or self.variant.overrides("features"))

  @property
  def reads(self) -> bool:
    """True when a hook reads queries and keys besides that product."""
    scores = self.encoding.overrides("score") or self.variant.overrides("score")
    return scores or not self.multiplies

  @property
  def biased(self) -> bool:
    return self.encoding.bias is not None and not self.encoding.overrides("score")

  def score(
    self, weights: TileWeights, raw_HLM, bias, query, key, tile_index: TileIndex
  ):
    """Returns scores s_HLM with biases; masked scores are `MASKED`.

    weights      as in the class
    raw_HLM      dot products
    bias         bias of the tile, or 0
    query, key   (vectors, data) of the tile, for hooks that read them
    tile_index   index of the tile
    """
    H, variant = len(raw_HLM), BoundVariant(self.variant, weights["variant"])
    scale: float | jax.Array = weights["scale_H"] if self.scale is None else self.scale
    mask_BLM = self.attends(weights, tile_index)
    (q_urK, q_data), (k_uMK, k_data) = query, key
    q_at, k_at = _with(tile_index.q_at, q_data), _with(tile_index.k_at, k_data)
    if self.reads:
      q_HLK = q_urK.reshape(H, -1, q_urK.shape[-1])
      k_HMK = jnp.repeat(k_uMK, H // len(k_uMK), axis=0)
      q_BLHK, k_BMHK = (jnp.moveaxis(x, 0, 1)[None] for x in (q_HLK, k_HMK))
    if self.multiplies:
      s_HLM = raw_HLM * by_head(scale)
    else:
      s_HLM = variant.dot(q_BLHK, k_BMHK, scale)[0]
    if self.encoding.overrides("score"):
      s_HLM = Bound(self.encoding, weights["position"]).score(
        s_HLM[None], q_BLHK, k_BMHK, q_at, k_at, mask_BLM, scale
      )[0]
    s_HLM, mask_HLM = s_HLM + bias, by_heads(mask_BLM)[0]
    if self.variant.overrides("score"):
      s_HLM = variant.score(
        jnp.where(mask_HLM, s_HLM, 0.0)[None],
        q_BLHK,
        k_BMHK,
        q_at,
        k_at,
        mask_BLM,
        scale,
      )[0]
    if self.variant.overrides("logits"):
      # The bias of a masked pair may be undefined: its gradient would be NaN.
      s_HLM = variant.logits(jnp.where(mask_HLM, s_HLM, 0.0)[None])[0]
    return jnp.where(mask_HLM, s_HLM, MASKED)

  def attends(self, weights: TileWeights, tile_index: TileIndex) -> jax.Array:
    """Returns the mask of a tile: mask_BLM, or mask_BHLM if heads differ."""
    position = Bound(self.encoding, weights["position"])
    return BoundVariant(self.variant, weights["variant"]).attends(
      position, tile_index.q_at, tile_index.k_at
    )

  def bias(self, weights: TileWeights, tile_index: TileIndex):
    """Returns the bias of a tile, with an axis of heads, or zero."""
    if not self.biased:
      return 0.0
    if "bias_qkHLM" in weights:
      return weights["bias_qkHLM"][tile_index.i, tile_index.j]
    if "table_HN" not in weights:
      return self.bias_here(weights["position"], tile_index)
    table_HN, (start, width) = weights["table_HN"], tile_index.window()
    bq, bk = tile_index.q_at.order_BL.shape[1], tile_index.k_at.order_BL.shape[1]

    def band():
      window_HN = jax.lax.dynamic_slice_in_dim(table_HN, start, width, axis=1)
      return toeplitz.spread(window_HN, bq)

    def here():
      bias_HLM = self.bias_here(weights["position"], tile_index)
      return jnp.broadcast_to(bias_HLM, (len(table_HN), bq, bk)).astype(table_HN.dtype)

    return jax.lax.cond(tile_index.band, band, here)

  def pull_bias(
    self, weights: TileWeights, tile_index: TileIndex, d_bias, d_weights: TileWeights
  ):
    """Returns d_weights plus the gradient through a tile's bias."""
    if not self.biased:
      return d_weights
    if "bias_qkHLM" in weights:
      d_bias_qkHLM = d_weights["bias_qkHLM"].at[tile_index.i, tile_index.j].add(d_bias)
      return d_weights | {"bias_qkHLM": d_bias_qkHLM}
    position = weights["position"]

    def here():
      bias, pull = jax.vjp(
        lambda position: self.bias_here(position, tile_index), position
      )
      shared = len(bias) == 1 < len(d_bias)
      return pull(
        (d_bias.sum(0, keepdims=True) if shared else d_bias).astype(bias.dtype)
      )[0]

    if "table_HN" not in weights:
      return add_to(d_weights, "position", here())
    (start, width), H = tile_index.window(), len(d_bias)
    d_window_HN, d_position = jax.lax.cond(
      tile_index.band,
      lambda: (toeplitz.collapse(d_bias), zeros(position)),
      lambda: (jnp.zeros((H, width), jnp.float32), add(here())),
    )
    d_table_HN = d_weights["table_HN"]
    old_HN = jax.lax.dynamic_slice_in_dim(d_table_HN, start, width, axis=1)
    d_table_HN = jax.lax.dynamic_update_slice_in_dim(
      d_table_HN, old_HN + d_window_HN, start, axis=1
    )
    return add_to(d_weights | {"table_HN": d_table_HN}, "position", d_position)

  def bias_here(self, position, tile_index: TileIndex) -> jax.Array:
    """Returns the bias of a tile, computed by the encoding's hook."""
    bias_BHLM = Bound(self.encoding, position).bias(
      tile_index.q_at.pos_BL, tile_index.k_at.pos_BL
    )
    return jnp.asarray(bias_BHLM)[0]

  def pointwise(self, variant_params, s_HLM, tile_index: TileIndex) -> jax.Array:
    """Returns weights w_HLM that need no softmax."""
    variant = BoundVariant(self.variant, variant_params)
    w_HLM = variant.pointwise(s_HLM[None], tile_index.key_count_BL)[0]
    return jnp.where(variant.mask(tile_index.q_at, tile_index.k_at), w_HLM, 0.0)

  def values(self, position, w_HLM, tile_index: TileIndex) -> jax.Array:
    """Returns the encoding's addition to the mixture of values, o_HLE."""
    bound = Bound(self.encoding, position)
    out_BLHE = bound.values(w_HLM[None], tile_index.q_at.pos_BL, tile_index.k_at.pos_BL)
    return jnp.moveaxis(jnp.asarray(out_BLHE)[0], 1, 0)


def _with(at: Coords, data: TokenData) -> Coords:
  """Returns the coordinates of a tile with its token data."""
  of_encoding, of_variant = data
  return at.replace(data=of_encoding, variant_data=of_variant)


def zeros(tree: Any) -> Any:
  """Returns float32 zeros in the shapes of a tree."""
  return jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), tree)


def add(*trees: Any) -> Any:
  """Adds trees in float32."""
  return jax.tree.map(lambda *x: sum(y.astype(jnp.float32) for y in x), *trees)


def add_to(tree: TileWeights, name: str, more: Any) -> TileWeights:
  """Adds to one entry of a dict of trees."""
  return tree | {name: add(tree[name], more)}
