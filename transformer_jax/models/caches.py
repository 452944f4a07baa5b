"""The caches that a model starts decoding with.

Layers keep what they made of earlier tokens. That is what a full pass over the text
makes of them, unless later tokens change earlier ones in a text of that length
(`PositionalEncoding.stable_length`), or weights read what no cache keeps
(`Variant.rereads`):
then the text is kept, and read again with each token.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from transformer_jax.attention.cache import CachedText, empty
from transformer_jax.models.compatibility import form
from transformer_jax.models.transformer import Architecture
from transformer_jax.positions import bind, coords


@functools.singledispatch  # by the kind of architecture
def empty_cache(arch: Architecture, B: int, M: int, frozen: bool = False) -> Any:
  """Returns the empty caches of all layers, of B rows for M tokens each.

  They are a list, or stacked arrays where the layers are one program, or a
  `CachedText`.

  frozen   what layers made of a token stays, whatever comes later, and its keys stay
           turned as they were, as in HuggingFace's models. Differs from the full pass
           where later tokens change earlier ones
  """
  rereads = form(arch.attention, arch.decoding).rereads
  if rereads or (not frozen and _changes(arch, M)):
    token_BM1 = jax.ShapeDtypeStruct((B, M, 1), jnp.int32)
    ids = form(arch.position, arch.decoding).ids
    at = coords.absent(B, M)
    at = at.replace(data={name: at.pos_BL for name in ids})
    return CachedText(empty({"token": token_BM1}, at))
  caches = [_empty(arch, n, B, M, frozen) for n in range(arch.decoders)]
  return jax.tree.map(lambda *x: jnp.stack(x), *caches) if arch.scan else caches


def _changes(arch: Architecture, M: int) -> bool:
  """Returns whether later tokens change earlier states in texts of M tokens."""
  stable_length = form(arch.position, arch.decoding).stable_length(arch.of_decoder.dims)
  if stable_length is None or M <= stable_length:
    return False
  # The keys of one layer are made of tokens alone, and turned anew for each query.
  return arch.decoders > 1 or stable_length == 0


def _empty(arch, n, B, M, frozen):
  """Returns the empty cache of layer n."""
  dims, (encoding, variant) = arch.of_decoder.dims, arch.layer(arch.decoding, n)
  projections = variant.projections().fit(dims)
  shapes = projections.weights(dims)
  w = {
    name: jax.ShapeDtypeStruct(shape, jnp.float32)
    for name, (shape, _) in shapes.items()
  }
  w |= jax.eval_shape(lambda: projections.init(jax.random.key(0), dims))
  x_BMD = jax.ShapeDtypeStruct((B, M, dims.D), arch.dtype)
  q_BMHK = jax.eval_shape(projections.query, w, x_BMD)
  kept = jax.eval_shape(projections.memory, w, x_BMD)
  read = functools.partial(_first_read, encoding, projections, dims)
  return empty(kept, jax.eval_shape(read, x_BMD, q_BMHK), frozen)


def _first_read(encoding, projections, dims, x_BLD, q_BLHK):
  """Returns coordinates as a layer keeps them: positions may not be whole numbers."""
  at = coords.absent(*x_BLD.shape[:2])
  at = at.replace(data={name: at.pos_BL for name in encoding.ids})
  dims = projections.seen_by(dims, encoding)
  position = bind(encoding, encoding.init(jax.random.key(0), dims), dims)
  return projections.inform(
    position, x_BLD, q_BLHK, encoding.assign_positions(None, at)
  )
