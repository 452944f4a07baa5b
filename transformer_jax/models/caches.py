"""The caches that a model starts decoding with."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from transformer_jax.attention.cache import Cache
from transformer_jax.models.transformer import Architecture
from transformer_jax.positions import bind, coords


def empty_cache(arch: Architecture, B: int, M: int) -> Any:
  """Returns the empty caches of all layers, of B rows for M tokens each.

  They are a list, or stacked arrays where the layers are one program.
  """
  caches = [_empty(arch, arch.decoding.layer(n), B, M) for n in range(arch.decoders)]
  return jax.tree.map(lambda *x: jnp.stack(x), *caches) if arch.scan else caches


def _empty(arch, encoding, B, M):
  """Returns the empty cache of one layer."""
  dims = arch.dims
  vector = lambda *axes: jax.ShapeDtypeStruct((B, M, *axes), arch.dtype)
  read = functools.partial(_first_read, encoding, dims)
  zeros = lambda tree: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), tree)
  at = zeros(jax.eval_shape(read, vector(dims.D), vector(dims.H, dims.K)))
  none = coords.absent(B, M)
  at = at.replace(order_BL=none.order_BL, sees_BL=none.sees_BL)
  k_BMHK = zeros(vector(dims.H, dims.K))
  return Cache(k_BMHK, k_BMHK, at, jnp.zeros((), jnp.int32))


def _first_read(encoding, dims, x_BLD, q_BLHK):
  """Returns coordinates as a layer keeps them: positions may not be whole numbers."""
  at = coords.absent(*x_BLD.shape[:2])
  at = at.replace(data={name: at.pos_BL for name in encoding.ids})
  position = bind(encoding, encoding.init(jax.random.key(0), dims), dims)
  return position.read(x_BLD, q_BLHK, encoding.place(None, at))
