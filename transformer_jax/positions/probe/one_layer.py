"""One layer's use of an encoding on a few tokens, with the outputs `probe` compares."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax import numpy_interpreter
from transformer_jax.axes import Dims
from transformer_jax.positions.base import Params, PositionalEncoding
from transformer_jax.positions.bound import Bound, bind
from transformer_jax.positions.coords import Coords

HostArrays = dict[str, np.ndarray]
ALL, SOME, KEYS = slice(None), slice(2, 6), slice(0, 4)


def act(
  encoding: PositionalEncoding,
  dims: Dims,
  params: Params,
  x_BLD: jax.Array,
  q_BLHK: jax.Array,
  k_BLHK: jax.Array,
  at: Coords,
  *,
  compare: bool = True,
) -> dict[str, Any]:
  """Returns the outputs of an encoding's hooks in one layer, heads first, without B.

  encoding         the encoding
  dims             sizes
  params           parameters
  x_BLD            token embeddings; B = 1
  q_BLHK, k_BLHK   queries and keys, without embeddings
  at               coordinates
  compare          also runs hooks on part of the tokens

  scores, bias     s_HLM and b_HLM, zero where a key is masked
  values           o_HLK, the encoding's update of outputs
  query, key       rotated, [H, L, K]
  apart            relative error of hooks on part of the tokens, if `compare`
  """
  bound = bind(encoding, params, dims)
  embedded_BLD = bound.embed(x_BLD, at)
  q_BLHK, k_BLHK = (y + _as_heads(embedded_BLD, y) for y in (q_BLHK, k_BLHK))
  read = bound.read(embedded_BLD, q_BLHK, at)
  whole = bound.accumulate(read)
  rotated = bound.transform_qk(q_BLHK, k_BLHK, whole, whole)
  layer = Layer(bound, rotated, whole)
  scores_BHLM = layer.score(layer.dots, ALL, ALL)
  values_BLHK = _values(bound, layer.weights, at)
  apart: dict[str, Any] = {}
  if compare:
    inputs = Inputs(x_BLD, q_BLHK, k_BLHK, at, embedded_BLD, read)
    apart |= inputs.on_a_part(bound, rotated, whole)
    apart |= layer.on_a_part(scores_BHLM)
    if encoding.overrides("values"):
      apart["values"] = apart_by(2 * values_BLHK, _values(bound, 2 * layer.weights, at))
  bias_BHLM = jnp.broadcast_to(bound.bias(at.pos_BL, at.pos_BL), scores_BHLM.shape)
  return {
    "scores": layer.full_scores(scores_BHLM)[0],
    "bias": jnp.where(layer.mask[:, None], bias_BHLM, 0.0)[0],
    "values": _heads_first(values_BLHK),
    "query": _heads_first(rotated[0]),
    "key": _heads_first(rotated[1]),
    "apart": apart,
  }


def _values(bound: Bound, w_BHLM: jax.Array, at: Coords) -> jax.Array:
  """Returns the encoding's update of outputs, zeros of [1, L, H, 1] without one."""
  if not bound.encoding.overrides("values"):
    return jnp.zeros((1, w_BHLM.shape[2], w_BHLM.shape[1], 1))
  return jnp.asarray(bound.values(w_BHLM, at.pos_BL, at.pos_BL))


def _heads_first(y_BLHK: jax.Array) -> jax.Array:
  """Returns y_HLK of the only text."""
  return jnp.moveaxis(y_BLHK[0], 1, 0)


@dataclasses.dataclass
class Inputs:
  """Inputs of the hooks on tokens, with their outputs on the whole text.

  x_BLD            token embeddings; B = 1
  q_BLHK, k_BLHK   queries and keys
  at               coordinates
  embedded_BLD     token embeddings after `embed`
  read             coordinates with token data
  """

  x_BLD: jax.Array
  q_BLHK: jax.Array
  k_BLHK: jax.Array
  at: Coords
  embedded_BLD: jax.Array
  read: Coords

  def on_a_part(
    self, bound: Bound, rotated: tuple[jax.Array, jax.Array], whole: Coords
  ) -> dict[str, jax.Array]:
    """Returns by hook the relative error of its outputs on some of the tokens.

    bound     the encoding with parameters
    rotated   (q_BLHK, k_BLHK) after `transform_qk`
    whole     coordinates with accumulated token data
    """
    uses, at, q_BLHK = bound.encoding.overrides, cut(self.at, SOME), self.q_BLHK
    apart = {}
    if uses("embed"):
      part_BLD = bound.embed(self.x_BLD[:, SOME], at)
      apart["embed"] = apart_by(self.embedded_BLD[:, SOME], part_BLD)
    if uses("token_data"):
      part_at = bound.read(self.embedded_BLD[:, SOME], q_BLHK[:, SOME], at)
      apart["token_data"] = apart_by(cut(self.read, SOME).data, part_at.data)
    if uses("transform_qk") or uses("rotate"):
      part = bound.transform_qk(q_BLHK[:, SOME], self.k_BLHK, cut(whole, SOME), whole)
      apart["transform_qk"] = apart_by((rotated[0][:, SOME], rotated[1]), part)
    return apart


@dataclasses.dataclass
class Layer:
  """Rotated queries and keys of some tokens, and the scores between them.

  bound     the encoding with parameters
  rotated   (q_BLHK, k_BLHK)
  at        their coordinates
  """

  bound: Bound
  rotated: tuple[jax.Array, jax.Array]
  at: Coords

  @property
  def scale(self) -> float:
    return self.rotated[0].shape[-1] ** -0.5

  @property
  def dots(self) -> jax.Array:
    return self.scale * jnp.einsum("BLHK,BMHK->BHLM", *self.rotated)

  @property
  def mask(self) -> jax.Array:
    at = self.at
    same_BLM = at.segment_BL[:, :, None] == at.segment_BL[:, None, :]
    early_BLM = at.order_BL[:, None, :] <= at.horizon_BL[:, :, None]
    return same_BLM & early_BLM & at.real_BL[:, None, :]

  @property
  def weights(self) -> jax.Array:
    n_BL, H = self.at.order_BL, self.dots.shape[1]
    pair_BLM = 3.0 * n_BL[:, :, None] + n_BL[:, None, :]
    w_BHLM = jnp.cos(pair_BLM[:, None] + jnp.arange(H)[:, None, None])
    return jnp.where(self.mask[:, None], w_BHLM, 0.0)

  def score(
    self,
    dots_BHLM: jax.Array,
    queries: slice,
    keys: slice,
    q_at: Coords | None = None,
    k_at: Coords | None = None,
  ) -> jax.Array:
    """Returns the scores of some queries and keys, zero where a key is masked.

    dots_BHLM       their scaled dot products
    queries, keys   the tokens to take
    q_at, k_at      their coordinates; None: those of the layer
    """
    q_BLHK, k_BMHK = self.rotated[0][:, queries], self.rotated[1][:, keys]
    mask_BLM = self.mask[:, queries, keys]
    q_at, k_at = q_at or cut(self.at, queries), k_at or cut(self.at, keys)
    s_BHLM = self.bound.score(
      dots_BHLM, q_BLHK, k_BMHK, q_at, k_at, mask_BLM, self.scale
    )
    return jnp.where(mask_BLM[:, None], s_BHLM, 0.0)

  def on_a_part(self, scores_BHLM: jax.Array) -> dict[str, jax.Array]:
    """Returns by hook the relative error of a tile's scores, and of prepared ones.

    scores_BHLM   of all queries and keys
    """
    apart, encoding = {}, self.bound.encoding
    if encoding.overrides("score") or encoding.bias is not None:
      name = "score" if encoding.overrides("score") else "bias"
      part_BHLM = self.score(self.dots[:, :, SOME, KEYS], SOME, KEYS)
      apart[name] = apart_by(scores_BHLM[:, :, SOME, KEYS], part_BHLM)
    if encoding.overrides("prepare"):
      ready, q_at, k_at = self.bound.prepare(self.at, self.at)
      layer = Layer(ready, self.rotated, self.at)
      other_BHLM = layer.score(self.dots, ALL, ALL, q_at=q_at, k_at=k_at)
      apart["prepare"] = apart_by(scores_BHLM, other_BHLM)
    return apart

  def full_scores(self, s_BHLM: jax.Array) -> jax.Array:
    """Returns the scores after `full_scores`, zero where a key is masked."""
    q_BLHK, k_BMHK = self.rotated
    s_BHLM = self.bound.full_scores(
      s_BHLM, q_BLHK, k_BMHK, self.at, self.at, self.mask, self.scale
    )
    return jnp.where(self.mask[:, None], s_BHLM, 0.0)


def gradients(
  encoding: PositionalEncoding, dims: Dims, sets: list[HostArrays], *given: Any
) -> list[HostArrays]:
  """Returns the gradient of a weighted sum of all outputs, for each set of parameters.

  encoding   the encoding
  dims       sizes
  sets       sets of parameters
  given      x_BLD, q_BLHK, k_BLHK and coordinates, as in `act`
  """

  def total(params: Params, *given: Any) -> jax.Array:
    out = act(encoding, dims, params, *given, compare=False)
    total = jnp.zeros(())
    for x in (out[name] for name in ("scores", "values", "query", "key")):
      total += jnp.sum(x * jnp.sin(1.0 + jnp.arange(x.size)).reshape(x.shape))
    return total

  run = numpy_interpreter.trace(jax.grad(total), sets[0], *given)
  return [run(params, *given) for params in sets]


def cut(at: Coords, part: slice) -> Coords:
  return jax.tree.map(lambda x: x[:, part], at)


def _as_heads(x_BLD: jax.Array, like_BLHK: jax.Array) -> jax.Array:
  """Returns 0.3 times the embeddings, tiled to the shape of queries."""
  (_, _, H, K), D = like_BLHK.shape, x_BLD.shape[-1]
  return 0.3 * jnp.tile(x_BLD, -(-H * K // D))[..., : H * K].reshape(like_BLHK.shape)


def apart_by(want: Any, got: Any) -> jax.Array:
  """Returns the largest difference of two trees, relative to `want`."""

  def share(a, b):
    return jnp.max(jnp.abs(a - b)) / (1 + jnp.max(jnp.abs(a)))

  return jnp.max(jnp.stack([0.0, *jax.tree.leaves(jax.tree.map(share, want, got))]))
