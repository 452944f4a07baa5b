"""Small inputs of a check: texts of each kind, and parameters that are not zero."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.attention.cores.context import Context
from transformer_jax.attention.cores.self_check.scheme import CallScheme, ParamShapes
from transformer_jax.attention.variants.bound_variant import BoundVariant
from transformer_jax.positions import Bound, Coords, coords

Tree = Any
TEXTS = 3  # of each kind one, or three that share their coordinates


def make(scheme: CallScheme) -> Tree:
  """Returns the arrays of a check, of which all floats get a gradient.

  q, k, v, g   queries, keys, values and the gradient of the outputs
  x            tokens, which encodings may read
  params, variant_params, scale_H   of the encoding, of the variant, and of each head
  """
  random, dims = np.random.default_rng(0), scheme.dims
  G = dims.G or dims.H

  def normal(*shape: int) -> np.ndarray:
    return random.normal(size=shape).astype(np.float32)

  q, k, v = (jnp.dtype(name) for name in scheme.dtypes)
  return {
    "q": normal(TEXTS, scheme.L, dims.H, dims.K).astype(q),
    "k": normal(TEXTS, scheme.M, G, dims.K).astype(k),
    "v": normal(TEXTS, scheme.M, G, dims.E or dims.K).astype(v),
    "g": normal(TEXTS, scheme.L, dims.H, dims.E or dims.K).astype(v),
    "x": normal(TEXTS, scheme.M, dims.D),
    "params": _values(scheme.params, _initial(scheme.encoding, dims), random),
    "variant_params": _values(
      scheme.variant_params, _initial(scheme.variant, dims), random
    ),
    "scale_H": (dims.K**-0.5 * np.exp(0.1 * normal(dims.H))).astype(np.float32),
  }


def context_of(scheme: CallScheme, arrays: Tree) -> Context:
  """Returns the context of the call: three kinds of texts, and hooks' token data."""
  position = Bound(scheme.encoding, arrays["params"])
  variant = BoundVariant(scheme.variant, arrays["variant_params"])
  k_at = texts(scheme)
  k_at = k_at.replace(data={name: k_at.pos_BL % 3 for name in scheme.encoding.ids})
  # Tokens as wide as queries, one for each key; their last are those of the queries.
  q_BMHK = jnp.resize(arrays["q"], (len(arrays["x"]), scheme.M, *arrays["q"].shape[2:]))
  k_at = variant.read(arrays["x"], q_BMHK, position.read(arrays["x"], q_BMHK, k_at))
  k_at = variant.accumulate(position.accumulate(k_at))
  q_at = jax.tree.map(lambda x: x[:, scheme.M - scheme.L :], k_at)
  scale = arrays["scale_H"] if scheme.scale is None else scheme.scale
  return Context(q_at, k_at, position, scale, variant)


def texts(scheme: CallScheme) -> Coords:
  """Returns coordinates of the keys: causal, packed and padded, bidirectional.

  Texts that share their coordinates are two packed ones.
  """
  M = scheme.M
  place_M = jnp.arange(M)
  real_M = place_M < M - M // 16
  segment_BM = jnp.where(real_M, 1 + (place_M > M // 3), 0)[None].astype(jnp.int32)
  packed = coords.packed(segment_BM)
  kinds = [coords.consecutive(1, M), packed, coords.padded(real_M[None])]
  kinds[2] = kinds[2].bidirectional()
  at = packed if scheme.shared else jax.tree.map(lambda *x: jnp.concatenate(x), *kinds)
  return at.replace(pos_BL=at.pos_BL.astype(scheme.pos_dtype))


def _initial(part: Any, dims: Any) -> dict[str, np.ndarray]:
  """Returns initial parameters and constants, where they can be had for these sizes."""
  try:
    found = part.init(jax.random.key(0), dims)
    found |= part.constants(dims) if hasattr(part, "constants") else {}
  except Exception:  # a class of a user's own may be made for other sizes
    return {}
  return {name: np.asarray(x) for name, x in found.items()}


def _values(shapes: ParamShapes, initial: Tree, random: np.random.Generator) -> Tree:
  """Returns arrays near their initial values, zeros moved too, or random ones."""
  arrays = {}
  for name, shape, dtype in shapes:
    start = initial.get(name)
    if start is None or start.shape != shape:
      start = np.full(shape, 0.0)
    if np.issubdtype(jnp.dtype(dtype), np.floating) or dtype == "bfloat16":
      moved = np.where(start == 0, 0.2, 0.2 * start) * random.normal(size=shape)
      start = start + moved
    arrays[name] = np.asarray(start).astype(jnp.dtype(dtype))
  return arrays
