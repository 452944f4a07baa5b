"""Empty caches for decoding.

Layers cache keys and values of earlier tokens; results equal a full pass over the text.
The exceptions: later tokens change earlier ones in a text of that length
(`PositionalEncoding.stable_length`), or the variant reads arrays that are not cached
(`Variant.rereads`). Then the text is cached, and read again with each token.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from transformer_jax.attention import BoundVariant
from transformer_jax.attention.cache import CachedText, empty
from transformer_jax.attention.convolution import none_yet
from transformer_jax.models.architecture import Architecture
from transformer_jax.models.canon import empty_convolutions
from transformer_jax.models.compatibility import form
from transformer_jax.positions import bind, coords


@functools.singledispatch  # by the kind of architecture
def empty_cache(arch: Architecture, B: int, M: int, frozen: bool = False) -> Any:
  """Returns the empty caches of all layers.

  A list, or stacked arrays with `arch.scan`, or a `CachedText`.

  arch     architecture of the model
  B        batch size
  M        tokens that fit into the cache
  frozen   keys stay as first rotated, as in HuggingFace's models; differs from the
           full pass where later tokens change earlier ones

  Raises ValueError for anything but an architecture.
  """
  if not isinstance(arch, Architecture):
    raise ValueError(f"arch is {arch!r}; give an Architecture, as model.arch is")
  rereads = form(arch.attention, arch.decoding).rereads
  if rereads or (not frozen and _changes(arch, M)):
    token_BM1 = jax.ShapeDtypeStruct((B, M, 1), jnp.int32)
    ids = form(arch.position, arch.decoding).ids
    at = coords.absent(B, M)
    at = at.replace(data={name: at.pos_BL for name in ids})
    return CachedText(empty({"token": token_BM1}, at))
  stack = arch.of_decoder
  caches = [
    empty_convolutions(stack, B, _empty(arch, n, B, M, frozen))
    for n in range(arch.decoders)
  ]
  return jax.tree.map(lambda *x: jnp.stack(x), *caches) if arch.scan else caches


def cache_between(arch: Architecture, n: int, B: int, M: int) -> Any:
  """Returns an empty cache with which layer n reads a text of M tokens in two parts.

  The layers before it have read the whole text. None where its later part alone would
  cost no less, as with a mixer, or where the layer caches no keys.

  arch   architecture of the stack
  n      number of the layer
  B      batch size
  M      tokens of the text
  """
  encoding, variant = arch.layer(arch.decoding, n)
  kept = not (variant.mixer or variant.kv_from or variant.rereads)
  # Keys of one layer are rotated again on reading, unless its states change as well.
  if not kept or encoding.stable_length(arch.dims) == 0:
    return None
  return empty_convolutions(arch, B, _empty(arch, n, B, M, frozen=False))


def _changes(arch: Architecture, M: int) -> bool:
  """Returns whether later tokens change earlier states in texts of M tokens."""
  stable_length = form(arch.position, arch.decoding).stable_length(arch.of_decoder.dims)
  if stable_length is None or M <= stable_length:
    return False
  # Keys of a single layer depend on tokens alone, and are rotated again on reading.
  return arch.decoders > 1 or stable_length == 0


def _empty(arch, n, B, M, frozen):
  """Returns the empty cache of layer n; other arguments are those of `empty_cache`."""
  dims, (encoding, variant) = arch.of_decoder.dims, arch.layer(arch.decoding, n)
  if variant.mixer:
    return variant.cache(dims, B, arch.dtype)
  if variant.kv_from:  # an earlier layer keeps its keys and values
    return None
  projections = variant.projections().fit(dims)
  w = projections.weight_shapes(dims)
  x_BMD = jax.ShapeDtypeStruct((B, M, dims.D), arch.dtype)
  q_BMHK = jax.eval_shape(projections.query, w, x_BMD)
  kept = jax.eval_shape(projections.memory, w, x_BMD)
  read = functools.partial(_first_read, encoding, variant, projections, dims)
  recent = _recent(variant, projections.sizes(dims), {"query": q_BMHK} | kept)
  return empty(kept, jax.eval_shape(read, w, x_BMD, q_BMHK), frozen, recent)


def _recent(variant, dims, given):
  """Returns what the variant's convolutions keep before the first token, or None.

  given   queries and cached arrays, as shapes [B, M, ...]
  """
  if not variant.overrides("taps"):
    return None
  taps = jax.eval_shape(lambda: variant.taps(variant.init(jax.random.key(0), dims)))
  return none_yet(given, taps, given["query"].shape[0])


def _first_read(encoding, variant, projections, dims, w, x_BLD, q_BLHK):
  """Returns coordinates as a layer caches them: positions may be fractions.

  encoding        of the layer
  variant         of the layer
  projections     of the variant
  dims            sizes
  w               weights of the projections
  x_BLD, q_BLHK   input of the layer and its queries
  """
  at = coords.absent(*x_BLD.shape[:2])
  at = at.replace(data={name: at.pos_BL for name in encoding.ids})
  bound = _bound(variant, projections.sizes(dims)).borrow(w, projections)
  dims = projections.encoding_dims(dims, encoding)
  position = bind(encoding, encoding.init(jax.random.key(0), dims), dims)
  at = projections.inform(position, x_BLD, q_BLHK, encoding.assign_positions(None, at))
  return bound.read(x_BLD, q_BLHK, at)


def _bound(variant, dims):
  """Returns the variant with parameters of the right shapes."""
  shapes = variant.weights(dims)
  weights = {name: jnp.zeros(shape, jnp.float32) for name, (shape, _) in shapes.items()}
  return BoundVariant(variant, weights | variant.init(jax.random.key(0), dims))
