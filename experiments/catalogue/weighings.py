"""Numbers of the catalogue's pictures of attention variants.

All come from the variant's projections and hooks, as a layer calls them.
"""

import dataclasses
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.attention import BoundVariant, Variant
from transformer_jax.attention.cores.base import repeat_heads
from transformer_jax.attention.cores.context import Context
from transformer_jax.axes import Dims
from transformer_jax.positions import PositionalEncoding, bind, coords

L, SCORES, VALUES = 48, np.linspace(-4, 4, 41), np.linspace(-3, 3, 41)
DIMS = Dims(V=2, D=64, H=4, F=2, L=L, K=16)
LAYERS = 4  # of a model whose layers share keys
BY_SCORE = "condition scale dot features logits sink_logit pointwise weigh".split()
NOTHING = bind(PositionalEncoding(), {}, DIMS)


def weighings(variant: Variant) -> dict[str, np.ndarray]:
  """Returns the arrays of a picture.

  map_LM       weights in the first head of a text of random tokens
  keys_L       number of keys that each query attends to, if the variant masks some
  scores_HM    weights of keys with scores SCORES, in a random order, if the variant
               changes the map from scores to weights
  cache_N      cached numbers per token, and parameters, as shares of those of
               `multihead`, if projections are changed
  values_HN    otherwise: output of two keys of equal score and values (t, 0), by t
  """
  layers = [variant.layer(n) for n in range(LAYERS)]
  variant = layers[0]
  if any(layer.kv_as for layer in layers):
    return {"map_LM": _map(variant), "cache_N": _shares(*layers)}
  if variant.overrides("mask") or variant.overrides("select"):
    variant = small(variant)
  plotted = {"map_LM": _map(variant)}
  if variant.overrides("mask"):
    at = coords.consecutive(1, L)
    mask_LM = BoundVariant(variant).mask(at, at)[0]
    return plotted | {"keys_L": np.asarray(jnp.sum(mask_LM, axis=-1))}
  if any(variant.overrides(hook) for hook in BY_SCORE):
    return plotted | {"scores_HM": _by_score(variant)}
  if type(variant.projections()) is type(Variant().projections()) and any(
    variant.overrides(hook) for hook in ("values", "mixed", "own_value", "output")
  ):
    return plotted | {"values_HN": _by_value(variant)}
  return plotted | {"cache_N": _shares(variant)}


def small(variant: Variant) -> Variant:
  """Returns the variant with sizes of at most 8 tokens, so it shows in 48 tokens."""
  sizes = {f.name: getattr(variant, f.name) for f in dataclasses.fields(variant)}
  large = {n: 8 for n, size in sizes.items() if isinstance(size, int) and size > 8}
  return dataclasses.replace(variant, **large)


def order(seed: int = 1) -> np.ndarray:
  """Returns the index of each key's score, in the order of the text."""
  return np.random.default_rng(seed).permutation(len(SCORES))


def _arrays(shapes: dict, seed: int) -> dict[str, jax.Array]:
  """Returns random weights, scaled by 1/sqrt of the number of inputs."""
  keys = jax.random.split(jax.random.key(seed), max(len(shapes), 1))
  return {
    name: jax.random.normal(key, shape) / math.sqrt(math.prod(shape[:inputs]) or 1)
    for key, (name, (shape, inputs)) in zip(keys, shapes.items(), strict=False)
  }


def _bound(variant: Variant, dims: Dims) -> BoundVariant:
  drawn = _arrays(variant.weights(dims), 2)
  return BoundVariant(variant, drawn | variant.init(jax.random.key(3), dims))


def _map(variant: Variant) -> np.ndarray:
  projections = variant.projections().fit(DIMS)
  w = _arrays(projections.weights(DIMS), 1)
  w |= projections.init(jax.random.key(4), DIMS)
  bound = _bound(variant, projections.sizes(DIMS))
  x_BLD, at = jax.random.normal(jax.random.key(5), (1, L, DIMS.D)), _at(L)
  given = {"query": projections.query(w, x_BLD)} | projections.memory(w, x_BLD)
  kept, _ = bound.convolve(given, at)
  q_BLHK = kept.pop("query")
  k_BMGK, _ = projections.read(w, kept)
  scale = variant.scale(bound.params, q_BLHK.shape[-1])
  q_BLHK, k_BMGK = variant.condition(bound.params, q_BLHK, k_BMGK)
  q_BLHK, k_BMGK = projections.transform_qk(NOTHING, q_BLHK, k_BMGK, at, at)
  at = bound.accumulate(bound.read(x_BLD, q_BLHK, at))
  w_BHLM = _weights(bound, q_BLHK, k_BMGK, at, scale)
  past_LM = np.tri(L, dtype=bool)
  return np.where(past_LM, np.asarray(w_BHLM[0, 0]), np.nan)


def _at(length: int) -> coords.Coords:
  return coords.consecutive(1, length)


def _weights(bound: BoundVariant, q_BLHK, k_BMGK, at, scale) -> jax.Array:
  context = Context(at, at, NOTHING, scale, bound)
  mask_BLM = context.mask()
  k_BMHK = repeat_heads(k_BMGK, q_BLHK.shape[2])
  s_BHLM = context.full_scores(q_BLHK, k_BMHK, mask_BLM)
  s_BHLM = context.logits(s_BHLM, q_BLHK, k_BMHK, mask_BLM)
  return context.weights(s_BHLM, context.selected(q_BLHK, k_BMHK, mask_BLM))


def _by_score(variant: Variant) -> np.ndarray:
  bound = _bound(variant, variant.projections().fit(DIMS).sizes(DIMS))
  M, H, K = len(SCORES), DIMS.H, DIMS.K
  q_BLHK = jnp.zeros((1, M, H, K)).at[..., 0].set(math.sqrt(K))
  k_BMHK = jnp.zeros((1, M, H, K)).at[..., 0].set(SCORES[order()][:, None])
  k_BMHK = k_BMHK.at[..., 1].set(1.0)
  scale = variant.scale(bound.params, K)
  q_BLHK, k_BMHK = variant.condition(bound.params, q_BLHK, k_BMHK)
  w_HM = np.asarray(_weights(bound, q_BLHK, k_BMHK, _at(M), scale)[0, :, -1])
  return w_HM[:, np.argsort(order())]


def _by_value(variant: Variant) -> np.ndarray:
  dims = variant.projections().sizes(DIMS)
  bound = _bound(variant, dims)
  drawn = {  # factors of one would show no change
    name: jax.random.uniform(jax.random.key(6), x.shape, minval=0.3, maxval=1.7)
    if np.ptp(x) == 0
    else x
    for name, x in bound.params.items()
  }
  v_BMHE = jnp.zeros((len(VALUES), 2, DIMS.H, dims.E or DIMS.K))
  v_BMHE = v_BMHE.at[:, 0].set(VALUES[:, None, None])
  v_BMHE = variant.values(drawn, v_BMHE)
  o_BLHE = variant.mixed(drawn, jnp.mean(v_BMHE, axis=1, keepdims=True))
  x_BLD = jnp.repeat(
    jax.random.normal(jax.random.key(7), (1, 1, DIMS.D)), len(VALUES), axis=0
  )
  own_BLHE = jnp.zeros_like(o_BLHE).at[..., 0].set(1.0)
  o_BLHE = variant.own_value(drawn, x_BLD, o_BLHE, own_BLHE)
  o_BLHE = variant.output(drawn, x_BLD, o_BLHE)
  return np.asarray(jnp.mean(o_BLHE[:, 0], axis=-1)).T


def _shares(*layers: Variant) -> np.ndarray:
  """Returns cached numbers and parameters as shares of those of `multihead`."""
  return np.mean([_sizes(layer) for layer in layers], axis=0) / _sizes(Variant())


def _sizes(variant: Variant) -> tuple[int, int]:
  """Returns cached numbers per token and parameters of a layer of width 512."""
  dims = Dims(V=2, D=512, H=8, F=2, L=L)
  projections = variant.projections().fit(dims)
  shapes = projections.weights(dims)
  w = {
    name: jax.ShapeDtypeStruct(shape, jnp.float32)
    for name, (shape, _) in shapes.items()
  }
  w |= jax.eval_shape(lambda: projections.init(jax.random.key(0), dims))
  cached = jax.eval_shape(
    projections.memory, w, jax.ShapeDtypeStruct((1, 1, dims.D), jnp.float32)
  )
  return _count(cached), _count(w) + sum(
    math.prod(shape) for shape, _ in variant.weights(projections.sizes(dims)).values()
  )


def _count(arrays: Mapping[str, jax.ShapeDtypeStruct]) -> int:
  return sum(math.prod(x.shape) for x in arrays.values())
