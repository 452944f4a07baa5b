"""Measurements of a variant's hooks on eight tokens, with NumPy."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax import numpy_interpreter
from transformer_jax.attention.carry import Carry
from transformer_jax.attention.variants.base import Variant
from transformer_jax.attention.variants.bound_variant import BoundVariant
from transformer_jax.axes import Dims
from transformer_jax.positions.coords import Coords
from transformer_jax.positions.probe.encoding_findings import (
  CUT,
  REST,
  L,
  difference,
  texts,
)
from transformer_jax.positions.probe.one_layer import KEYS, SOME, apart_by, cut

HookArrays = dict[str, Any]


class VariantFindings:
  """Outputs of a variant's hooks on eight tokens in several rows."""

  def __init__(self, variant: Variant, dims: Dims, shapes: HookArrays):
    self.variant, self.dims = variant, dims
    random = np.random.default_rng(0)

    def normal(*shape):
      return np.asarray(random.normal(size=shape), np.float32)

    self.given, self.other = (
      (normal(1, L, dims.D), *normal(3, 1, L, dims.H, dims.K)) for _ in range(2)
    )
    sizes = dataclasses.replace(dims, E=dims.K, G=0)  # as many heads of keys
    start = numpy_interpreter.evaluate(lambda: variant.init(jax.random.key(0), sizes))

    def near(x):
      return np.where(x == 0, 0.2, x * 0.2) * normal(*x.shape)

    moved = {name: (x + near(x)).astype(np.float32) for name, x in start.items()}
    more = {n: 0.3 * normal(*x.shape) for n, x in shapes.items() if n not in moved}
    self.params = moved | more
    self.base, self.first, self.packed = texts()
    self.run = self.trace(self.base, *self.given)
    self.usual = self.run(self.params, *self.given, self.base)

  def trace(self, at: Coords, *given: Any) -> Any:
    run = functools.partial(act, self.variant)
    return numpy_interpreter.trace(run, self.params, *given, at)

  def change(self, at: Coords, given: tuple | None = None, n: int = CUT) -> float:
    """Returns the difference of the first n tokens' outputs from those of the base."""
    out = self.run(self.params, *(given or self.given), at)["output"]
    return difference(self.usual["output"][:, :n], out[:, :n])

  @functools.cached_property
  def future(self) -> float:
    """Difference that later tokens make to earlier ones."""
    pairs = zip(self.given, self.other, strict=True)
    given = tuple(np.concatenate([a[:, :CUT], b[:, CUT:]], axis=1) for a, b in pairs)
    return self.change(self.base, given)

  @functools.cached_property
  def room(self) -> float:
    """Difference that padding makes to a text, or its absence."""
    given, at = [x[:, :CUT] for x in self.given], cut(self.base, slice(0, CUT))
    out = self.trace(at, *given)(self.params, *given, at)["output"]
    missing = difference(self.usual["output"][:, :CUT], out)
    return max(missing, self.change(self.first))

  @functools.cached_property
  def border(self) -> float:
    """Difference that the text before it in the row makes to a text."""
    alone = tuple(np.roll(x, -REST, axis=1) for x in self.given)
    text = self.run(self.params, *alone, self.first)["output"]
    row = self.run(self.params, *self.given, self.packed)["output"]
    return difference(row[:, REST:], text[:, :CUT])

  @functools.cached_property
  def idle(self) -> list[str]:
    """Parameters without any gradient."""

    def total(params: HookArrays, *given: Any) -> jax.Array:
      out_N = jnp.ravel(act(self.variant, params, *given)["output"])
      return jnp.vdot(out_N, jnp.sin(1.0 + jnp.arange(out_N.size)))

    if not self.params:
      return []
    grads = numpy_interpreter.evaluate(
      jax.grad(total), self.params, *self.given, self.base
    )
    idle = (name for name, x in grads.items() if not np.any(x != 0))
    return [name for name in idle if name not in self.variant.untrained]


def _shared(bound: BoundVariant, x_BLD, k_BLHK, v_BLHK, at: Coords) -> Any:
  """Returns keys and values of a second layer, after another one with other values."""
  carry = Carry().put("token_BL", jnp.broadcast_to(at.order_BL % 2, x_BLD.shape[:2]))
  share = functools.partial(bound.variant.share, bound.params, x_BLD)
  _, carry = share({"key": k_BLHK, "value": jnp.cos(v_BLHK)}, carry)
  kept, _ = share({"key": k_BLHK, "value": v_BLHK}, carry)
  return kept["key"], kept["value"]


def act(
  variant: Variant, params: HookArrays, x_BLD, q_BLHK, k_BLHK, v_BLHK, at: Coords
) -> dict[str, Any]:
  """Returns the attention of one row of tokens with this variant, as a dict:

  output   [1, L, H, K]
  unseen   largest weight of a masked key
  apart    by hook, the difference between a part of the tokens and all of them

  variant, params          the variant and its parameters
  x_BLD                    tokens, the input of attention
  q_BLHK, k_BLHK, v_BLHK   queries, keys and values
  at                       coordinates of the tokens
  """
  bound, uses = BoundVariant(variant, params), variant.overrides
  given = {"query": q_BLHK, "key": k_BLHK, "value": v_BLHK}
  q_BLHK, k_BLHK, v_BLHK = bound.convolve(given, at)[0].values()
  k_BLHK, v_BLHK = _shared(bound, x_BLD, k_BLHK, v_BLHK, at)
  read = bound.read(x_BLD, q_BLHK, at)
  at = bound.accumulate(read)
  conditioned = variant.condition(params, q_BLHK, k_BLHK)
  q, k = variant.rotated(params, *conditioned)
  scale = variant.scale(params, q.shape[-1])
  tempered_BLHK = bound.temper(q, at)
  s_BHLM, mask_BLM = bound.dot(tempered_BLHK, k, scale), bound.mask(at, at)
  tile = _Tile(bound, tempered_BLHK, k, at, mask_BLM, scale)
  scored_BHLM = tile.score(s_BHLM)
  logits_BHLM = bound.logits(scored_BHLM)
  chosen_BHLM = bound.select(tempered_BLHK, k, at, at, mask_BLM)
  w_BHLM = bound.weigh(logits_BHLM, chosen_BHLM, at, at)
  unseen_BHLM = jnp.where(mask_BLM[:, None], 0.0, w_BHLM)
  values_BLHK = variant.values(params, v_BLHK)
  mixed_BLHK = jnp.einsum("BHLM,BMHK->BLHK", w_BHLM, values_BLHK)
  o_BLHK = variant.mixed(params, mixed_BLHK)
  alone_BLHK = variant.own_value(params, x_BLD, o_BLHK, v_BLHK)
  out_BLHK = variant.output(params, x_BLD, alone_BLHK)
  apart = {}
  if uses("token_data"):
    part_at = bound.read(x_BLD[:, SOME], q_BLHK[:, SOME], cut(at, SOME))
    apart["token_data"] = apart_by(cut(read, SOME).variant_data, part_at.variant_data)
  if uses("temperature"):
    part_BLHK = bound.temper(q[:, SOME], cut(at, SOME))
    apart["temperature"] = apart_by(tempered_BLHK[:, SOME], part_BLHK)
  pairs = {"condition": (q_BLHK, k_BLHK), "rotated": conditioned}
  results = {"condition": conditioned, "rotated": (q, k)}
  for hook in filter(uses, pairs):
    part = getattr(variant, hook)(params, *_part(*pairs[hook]))
    apart[hook] = apart_by(_part(*results[hook]), part)
  if uses("features") or uses("dot"):
    part = bound.dot(tempered_BLHK[:, SOME], k[:, KEYS], scale)
    apart["features" if uses("features") else "dot"] = apart_by(_tile(s_BHLM), part)
  if uses("score"):
    apart["score"] = apart_by(_tile(scored_BHLM), tile.part().score(_tile(s_BHLM)))
  apart |= _scores_apart(bound, scored_BHLM, logits_BHLM, mask_BLM, at)
  of_tokens = {
    "values": ((v_BLHK,), values_BLHK),
    "mixed": ((mixed_BLHK,), o_BLHK),
    "own_value": ((x_BLD, o_BLHK, v_BLHK), alone_BLHK),
    "output": ((x_BLD, alone_BLHK), out_BLHK),
  }
  for hook in filter(uses, of_tokens):
    given_all, result = of_tokens[hook]
    part = getattr(variant, hook)(params, *(x[:, SOME] for x in given_all))
    apart[hook] = apart_by(result[:, SOME], part)
  unseen = jnp.max(jnp.abs(unseen_BHLM))
  return {"output": out_BLHK, "unseen": unseen, "apart": apart}


@dataclasses.dataclass(frozen=True)
class _Tile:
  """Queries and keys with what the hook `score` reads of them."""

  bound: BoundVariant
  q_BLHK: jax.Array
  k_BMHK: jax.Array
  at: Coords
  mask_BLM: jax.Array
  scale: float | jax.Array
  some: slice = dataclasses.field(default_factory=lambda: slice(None))
  keys: slice = dataclasses.field(default_factory=lambda: slice(None))

  def score(self, s_BHLM: jax.Array) -> jax.Array:
    """Returns the scores after the hook."""
    return self.bound.score(
      s_BHLM,
      self.q_BLHK[:, self.some],
      self.k_BMHK[:, self.keys],
      cut(self.at, self.some),
      cut(self.at, self.keys),
      self.mask_BLM[:, self.some, self.keys],
      self.scale,
    )

  def part(self) -> "_Tile":
    """Returns some queries and keys."""
    return dataclasses.replace(self, some=SOME, keys=KEYS)


def _scores_apart(bound, s_BHLM, logits_BHLM, mask_BLM, at):
  """Returns by hook the error of logits, weights and mask of a tile.

  bound         the bound variant
  s_BHLM        scores of all queries and keys, before `logits`
  logits_BHLM   their logits
  mask_BLM      True where a query attends to a key
  at            coordinates of the tokens
  """
  uses, apart = bound.variant.overrides, {}
  if uses("logits"):
    apart["logits"] = apart_by(_tile(logits_BHLM), bound.logits(_tile(s_BHLM)))
  if uses("pointwise"):
    count_BL = jnp.sum(mask_BLM, axis=-1)
    whole = bound.pointwise(logits_BHLM, count_BL)
    part = bound.pointwise(_tile(logits_BHLM), count_BL[:, SOME])
    apart["pointwise"] = apart_by(_tile(whole), part)
  if uses("mask"):
    part_BLM = bound.mask(cut(at, SOME), cut(at, KEYS))
    apart["mask"] = jnp.max(1.0 * (part_BLM != mask_BLM[:, SOME, KEYS]))
  return apart


def _part(q_BLHK: jax.Array, k_BLHK: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns some queries and some keys."""
  return q_BLHK[:, SOME], k_BLHK[:, KEYS]


def _tile(x_BHLM: jax.Array) -> jax.Array:
  """Returns some queries and keys of a matrix for each head."""
  return x_BHLM[:, :, SOME, KEYS]
