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
    "x": normal(TEXTS, max(scheme.L, scheme.M), dims.D),
    "params": _values(scheme.params, _initial(scheme.encoding, dims), random),
    "variant_params": _values(
      scheme.variant_params, _initial(scheme.variant, dims), random
    ),
    "scale_H": (dims.K**-0.5 * np.exp(0.1 * normal(dims.H))).astype(np.float32),
  }


def context_of(scheme: CallScheme, arrays: Tree, at: Coords) -> Context:
  """Returns the context of the call, with the token data of the hooks.

  at   coordinates of as many tokens as there are queries or keys, as `texts` has them
  """
  position = Bound(scheme.encoding, arrays["params"])
  variant = BoundVariant(scheme.variant, arrays["variant_params"])
  at = at.replace(data={name: at.pos_BL % 3 for name in scheme.encoding.ids})
  # Tokens as wide as queries; the last are those of the queries, the first of the keys.
  count = at.pos_BL.shape[1]
  q_BMHK = jnp.resize(arrays["q"], (TEXTS, count, *arrays["q"].shape[2:]))
  at = variant.read(arrays["x"], q_BMHK, position.read(arrays["x"], q_BMHK, at))
  at = variant.accumulate(position.accumulate(at))
  q_at = jax.tree.map(lambda x: x[:, count - scheme.L :], at)
  k_at = jax.tree.map(lambda x: x[:, : scheme.M], at)
  scale = arrays["scale_H"] if scheme.scale is None else scheme.scale
  return Context(q_at, k_at, position, scale, variant)


def texts(scheme: CallScheme) -> dict[str, Coords]:
  """Returns coordinates by kind of texts: causal ones that fill their rows, and others.

  The others are of three kinds in one batch, causal, packed and padded, bidirectional;
  or packed ones where texts share their coordinates. Kernels may choose by the kind.
  """
  count = max(scheme.L, scheme.M)
  place = jnp.arange(count)
  real = place < count - count // 16
  segment_BM = jnp.where(real, 1 + (place > count // 3), 0)[None].astype(jnp.int32)
  causal, packed = coords.consecutive(1, count), coords.packed(segment_BM)
  padded = coords.padded(real[None]).bidirectional()

  def rows(*kinds: Coords) -> Coords:
    at = jax.tree.map(lambda *x: jnp.concatenate(x), *kinds)
    return at.replace(pos_BL=at.pos_BL.astype(scheme.pos_dtype))

  if scheme.shared:
    return {"causal texts": rows(causal), "packed texts": rows(packed)}
  return {
    "causal texts": rows(*[causal] * TEXTS),
    "mixed texts": rows(causal, packed, padded),
  }


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
    if jnp.issubdtype(jnp.dtype(dtype), jnp.floating):
      moved = np.where(start == 0, 0.2, 0.2 * start) * random.normal(size=shape)
      start = start + moved
    arrays[name] = np.asarray(start).astype(jnp.dtype(dtype))
  return arrays
