"""Bound encodings: parameters included, one-head hooks lifted to batches and heads."""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.axes import Dims, axes_of
from transformer_jax.positions.base import Params, PositionalEncoding, Tile
from transformer_jax.positions.coords import Coords
from transformer_jax.positions.lifting import (
  by_head,
  head_axes,
  heads_first,
  over_batch,
  over_heads,
  score_by_head,
)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Bound:
  """A positional encoding together with its parameters; a pytree of arrays.

  Hooks of one head of one sequence are lifted to whole arrays. Coordinates whose batch
  axis is 1 are shared: a bias is then computed once per batch.

  encoding   the encoding
  params     parameters and constants by name

  >>> import jax
  >>> import numpy as np
  >>> import transformer_jax as tj
  >>> dims = tj.Dims(V=2, D=8, H=2, F=8, L=8)
  >>> alibi = tj.positions.bind(tj.positions.build("alibi"), {}, dims)
  >>> b_BHLM = jax.jit(alibi.bias)(np.array([[3]]), np.array([[0, 1, 2]]))
  >>> print(b_BHLM[0, 0], b_BHLM.shape)
  [[-0.1875 -0.125  -0.0625]] (1, 2, 1, 3)
  """

  encoding: PositionalEncoding = dataclasses.field(metadata={"static": True})
  params: Params = dataclasses.field(default_factory=dict)

  def borrow(self, weights: Params) -> "Bound":
    """Returns the encoding with the projection weights that it borrows."""
    return dataclasses.replace(self, params=self.encoding.borrow(self.params, weights))

  def embed(self, x_BLD: jax.Array, at: Coords) -> jax.Array:
    return self.encoding.embed(self.params, x_BLD, self.keep(at))

  def keep(self, at: Coords) -> Coords:
    """Returns the coordinates with only those ids that the encoding reads."""
    at.need(self.encoding.ids, self.encoding.name)
    return at.replace(data={name: at.data[name] for name in self.encoding.ids})

  def read(self, x_BLD: jax.Array, q_BLHK: jax.Array, at: Coords) -> Coords:
    """Returns the coordinates with the token data of `token_data`."""
    data = self.encoding.token_data(self.params, x_BLD, q_BLHK)
    at = self.keep(at)
    return at.replace(data=at.data | data)

  def accumulate(self, at: Coords) -> Coords:
    """Returns the coordinates with token data summed along the text."""
    return at.replace(data=self.encoding.accumulate(self.params, at.data, at))

  def transform_qk(
    self, q_BLHK: jax.Array, k_BMHK: jax.Array, q_at: Coords, k_at: Coords
  ) -> tuple[jax.Array, jax.Array]:
    """Returns (q_BLHK, k_BMHK), rotated and with the temperature applied.

    Shared key heads are repeated only if the encoding differs between heads.
    """
    repeat = q_BLHK.shape[2] // k_BMHK.shape[2]
    turns = self.encoding.overrides("transform_qk") or self.encoding.overrides("rotate")
    if repeat > 1 and turns and self.tells_heads_apart(k_at):
      k_BMHK = jnp.repeat(k_BMHK, repeat, axis=2)
    q_BLHK, k_BMHK = self.encoding.transform_qk(self.params, q_BLHK, k_BMHK, q_at, k_at)
    if self.encoding.overrides("temperature"):
      factor = self.encoding.temperature(self.params, q_at)
      q_BLHK = (q_BLHK * factor).astype(q_BLHK.dtype)
    return q_BLHK, k_BMHK

  def rotates_once(self, k_at: Coords) -> bool:
    """Returns whether keys are rotated before they are cached.

    So unless later tokens change the rotation, or it differs between heads: rotated
    keys could then have more heads than the cache.
    """
    later = self.encoding.overrides("transform_qk") or self.encoding.needs_full_text
    return not (later or self.tells_heads_apart(k_at))

  def rotates_early(self, k_at: Coords) -> bool:
    """Returns whether a frozen cache may hold keys as first rotated.

    Not where queries and keys must be rotated together, nor where heads differ.
    """
    return not (self.encoding.centred or self.tells_heads_apart(k_at))

  def prepare(self, q_at: Coords, k_at: Coords) -> tuple["Bound", Coords, Coords]:
    """Returns the encoding and coordinates prepared for cores that visit tiles."""
    params, q_at, k_at = self.encoding.prepare(self.params, q_at, k_at)
    return dataclasses.replace(self, params=params), q_at, k_at

  def tells_heads_apart(self, at: Coords) -> bool:
    """Returns whether any parameter or token data has an axis of heads."""
    return any("H" in axes_of(name) for name in (*self.params, *at.data))

  def score(
    self,
    s_BHLM: jax.Array,
    q_BLHK: jax.Array,
    k_BMHK: jax.Array,
    q_at: Coords,
    k_at: Coords,
    mask_BLM: jax.Array,
    scale: float | jax.Array,
  ) -> jax.Array:
    """Returns s_BHLM after `score` or `bias`, in float32.

    s_BHLM           scaled dot products
    q_BLHK, k_BMHK   queries and keys after `transform_qk`
    q_at, k_at       their coordinates
    mask_BLM         or mask_BHLM; True where a query attends to a key
    scale            factor on dot products, or scale_H
    """
    if not self.encoding.overrides("score"):
      return s_BHLM + self.bias(q_at.pos_BL, k_at.pos_BL)
    return score_by_head(
      self.encoding.score,
      self.params,
      s_BHLM,
      q_BLHK,
      k_BMHK,
      q_at,
      k_at,
      mask_BLM,
      scale,
    )

  def bias(self, pos_BL: jax.Array, pos_BM: jax.Array) -> jax.Array | float:
    """Returns the bias b_BHLM; its batch axis is as long as that of the positions."""
    if self.encoding.bias is None:
      return 0.0
    heads = over_heads(self.encoding.bias, self.params, self.head_axes)
    return over_batch(heads, (), (pos_BL, pos_BM))

  def mask(self, pos_BL: jax.Array, pos_BM: jax.Array) -> jax.Array | bool:
    """Returns mask_BHLM, the keys that each head attends to; True: any."""
    if self.encoding.mask is None:
      return True
    heads = over_heads(self.encoding.mask, self.params, self.head_axes)
    return over_batch(heads, (), (pos_BL, pos_BM))

  def full_scores(
    self,
    s_BHLM: jax.Array,
    q_BLHK: jax.Array,
    k_BMHK: jax.Array,
    q_at: Coords,
    k_at: Coords,
    mask_BLM: jax.Array,
    scale: float | jax.Array,
  ) -> jax.Array:
    """Returns s_BHLM after `full_scores`.

    s_BHLM           scores of all heads, with all keys of each query
    q_BLHK, k_BMHK   queries and keys after `transform_qk`
    q_at, k_at       their coordinates
    mask_BLM         or mask_BHLM; True where a query attends to a key
    scale            factor on dot products, or scale_H
    """
    if self.encoding.tile_local:
      return s_BHLM
    tile = Tile(
      q_LK=jnp.moveaxis(q_BLHK, 2, 1),
      k_MK=jnp.moveaxis(k_BMHK, 2, 1),
      pos_L=q_at.pos_BL,
      pos_M=k_at.pos_BL,
      mask_LM=mask_BLM,
      q_data=heads_first(q_at.data),
      k_data=heads_first(k_at.data),
      scale=0.0,
    )

    def one(params, scale, s_HLM, tile):
      return self.encoding.full_scores(
        params, s_HLM, dataclasses.replace(tile, scale=scale)
      )

    return over_batch(one, (self.params, by_head(scale)), (s_BHLM, tile))

  def values(
    self, w_BHLM: jax.Array, pos_BL: jax.Array, pos_BM: jax.Array
  ) -> jax.Array | float:
    """Returns the encoding's update of the output, o_BLHK."""
    if not self.encoding.overrides("values"):
      return 0.0
    heads = jax.vmap(self.encoding.values, (self.head_axes, 0, None, None))
    out_BHLK = over_batch(heads, (self.params,), (w_BHLM, pos_BL, pos_BM))
    return jnp.moveaxis(out_BHLK, 1, 2)

  @property
  def head_axes(self) -> dict[str, int | None]:
    return head_axes(self.params)


def bind(encoding: PositionalEncoding, params: Params, dims: Dims) -> Bound:
  """Returns the encoding with its parameters and constants."""
  return Bound(encoding, params | encoding.constants(dims))
