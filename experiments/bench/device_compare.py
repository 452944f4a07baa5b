"""Comparison of an attention core with `dense`, both on this device.

Outputs and all gradients: of queries, keys, values, tokens and every parameter of the
encoding. The reference is `dense` in float32 with products of the highest precision,
from the same rounded inputs.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.attention.cores import cores
from transformer_jax.attention.variants.base import attentions
from transformer_jax.attention.variants.bound_variant import BoundVariant
from transformer_jax.axes import Dims
from transformer_jax.positions import Coords, bind, coords, positions

DTYPES = "float32", "bfloat16"
# Relative to the largest entry of an array. float32: sums of hundreds of products in
# another order, and exponentials that chips approximate to a few units in the last
# place. bfloat16: five roundings to 8 bits, each 2^-9, of rotated vectors, weights,
# outputs and two gradients; a lost tile or a wrong mask is off by its whole size.
TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}
# bfloat16 rounds some encodings more: twice the error of `dense` in the same type is
# allowed, as in the tests of FlashAttention (https://arxiv.org/abs/2205.14135).
SLACK = 2.0
# A gradient whose terms cancel is rounded as its terms are: entries count as at least
# this part of the largest of all gradients.
CANCELLED = 1e-2
MODES = "train", "packed", "gqa", "window"


@dataclasses.dataclass(frozen=True)
class ComparedShape:
  """Sizes of the compared attention; no block size divides the length.

  B, L     sequences and their tokens
  H, G     heads of queries, and of keys in the mode `gqa`
  K        width of a head
  window   keys in the mode `window`

  >>> ComparedShape().dims.D
  256
  """

  B: int = 2
  L: int = 330
  H: int = 4
  G: int = 2
  K: int = 64
  window: int = 100

  @property
  def dims(self) -> Dims:
    return Dims(V=8, D=self.H * self.K, H=self.H, F=8, L=self.L, K=self.K)

  def variant(self, mode: str) -> str:
    """Returns the spec of the attention variant of a mode."""
    specs = {"gqa": f"gqa({self.G})", "window": f"window({self.window})"}
    return specs.get(mode, "multihead")

  def at(self, mode: str, encoding) -> Coords:
    """Returns the coordinates of a mode, with the ids that the encoding reads."""
    at = coords.consecutive(self.B, self.L)
    if mode == "packed":
      cut, short = self.L // 2 + 3, self.L // 8
      place_1L = jnp.arange(self.L)[None]
      first_B1 = jnp.where(jnp.arange(self.B)[:, None] % 2, short, cut)
      # Odd rows begin with padding, the others have two texts.
      before_B1 = jnp.where(jnp.arange(self.B)[:, None] % 2, 0, 1)
      at = coords.packed(jnp.where(place_1L < first_B1, before_B1, 2))
    order_BL = jnp.maximum(at.order_BL, 0)
    ids = {name: order_BL // (n + 2) for n, name in enumerate(encoding.ids)}
    return at.replace(data=ids)


def compare(encoding: str, core: str, shape: ComparedShape) -> dict[str, Any]:
  """Returns the outcome of each type and mode: `passed`, `refused` or `failed`.

  encoding, core   specs
  shape            sizes
  """
  built, tested = positions.build(encoding), cores.build(core)
  outcomes = {}
  for dtype in DTYPES:
    for mode in MODES:
      variant = attentions.build(shape.variant(mode))
      reason = tested.refusal(built, variant)
      if reason is None:
        outcomes[f"{dtype} {mode}"] = _outcome(built, core, dtype, mode, shape)
      else:
        outcomes[f"{dtype} {mode}"] = {"refused": reason}
  return outcomes


def _outcome(encoding, core, dtype, mode, shape) -> dict[str, Any]:
  try:
    want, own = _reference(encoding, dtype, mode, shape)
    got = _computed(encoding, core, dtype, mode, shape)
  except Exception as error:  # compilers and devices have their own kinds of errors
    words = " ".join(str(error).split())[:200]
    if isinstance(error, ValueError) and words.startswith(core.partition("(")[0]):
      return {"refused": words}  # of a type or a width
    return {"failed": f"{type(error).__name__}: {words}"}
  return verdict(errors(got, want), own, TOLERANCE[dtype])


def verdict(found: dict[str, float], own: dict[str, float], floor: float):
  """Returns whether all errors are within their tolerances, and the worst of them.

  found   errors by array
  own     errors of `dense` in the same type
  floor   tolerance where `dense` has no error
  """
  bounds = {name: max(floor, SLACK * own[name]) for name in found}
  # NaN compares as false with everything: it must come out as the worst.
  worst = max(found, key=lambda n: np.nan_to_num(found[n] / bounds[n], nan=np.inf))
  return {
    "passed": bool(found[worst] <= bounds[worst]),
    "worst": worst,
    "error": float(found[worst]),
    "tolerance": float(bounds[worst]),
  }


def errors(got: dict[str, Any], want: dict[str, Any]) -> dict[str, float]:
  """Returns the largest difference in each array over its largest entry."""
  largest = {name: float(np.abs(x).max()) for name, x in want.items()}
  of_gradients = max(x for name, x in largest.items() if name != "out")
  found = {}
  for name, x in want.items():
    least = 0.0 if name == "out" else CANCELLED * of_gradients
    size = max(largest[name], least) or 1.0
    found[name] = float(np.max(np.abs(got[name] - x))) / size
  return found


def _reference(encoding, dtype, mode, shape):
  """Returns arrays of `dense` in float32, and the errors of `dense` in this type."""
  exact = _computed(encoding, "dense", dtype, mode, shape, computed_in="float32")
  if dtype == "float32":
    return exact, dict.fromkeys(exact, 0.0)
  return exact, errors(_computed(encoding, "dense", dtype, mode, shape), exact)


@functools.lru_cache(16)
def _computed(encoding, core, dtype, mode, shape, computed_in=""):
  """Returns the output and all gradients, in NumPy and float32.

  encoding, core   built encoding; spec of the core
  dtype            type that the inputs are rounded to
  mode, shape      of the texts
  computed_in      type of the computation, if another one
  """
  with jax.default_matmul_precision("highest"):
    variant = shape.variant(mode)
    program = _program(encoding, core, variant, shape, computed_in or dtype)
    arrays = inputs(encoding, dtype, mode, shape)
    (_, out), grads = program(*arrays, shape.at(mode, encoding))
  named = {"out": out, **grads[1], **{f"param {n}": x for n, x in grads[0].items()}}
  return {n: np.asarray(x, np.float32) for n, x in jax.device_get(named).items()}


@functools.lru_cache(16)
def _program(encoding, core, variant, shape, dtype):
  """Returns the jitted gradient of attention, as a layer calls it."""
  tested, bound = cores.build(core), BoundVariant(attentions.build(variant))

  def loss(params, vectors, g_BLHK, at):
    q, k, v, x = (vectors[n].astype(dtype) for n in ("q", "k", "v", "x"))
    position = bind(encoding, params, shape.dims)
    at = position.accumulate(position.read(position.embed(x, at), q, at))
    q, k = position.transform_qk(q, k, at, at)
    out = tested(q, k, v, at, at, position, shape.K**-0.5, bound)
    return jnp.sum((out * g_BLHK.astype(dtype)).astype(jnp.float32)), out

  return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))


@functools.lru_cache(4)
def inputs(encoding, dtype, mode, shape):
  """Returns (parameters, vectors, g_BLHK) in float32, rounded to a type.

  Parameters are moved off their start, where some gradients are zero.
  """
  random = np.random.default_rng(0)

  def draw(*sizes):
    return jnp.asarray(random.normal(size=sizes), jnp.float32)

  B, L, H, K = shape.B, shape.L, shape.H, shape.K
  G = shape.G if mode == "gqa" else H
  vectors = {
    "q": (B, L, H, K),
    "k": (B, L, G, K),
    "v": (B, L, G, K),
    "x": (B, L, H * K),
  }
  drawn = {name: draw(*sizes) for name, sizes in vectors.items()}
  g_BLHK = draw(B, L, H, K)
  params = jax.jit(lambda: encoding.init(jax.random.key(0), shape.dims))()
  params = {n: x + 0.2 * draw(*x.shape) for n, x in sorted(params.items())}

  def rounded(x):
    return x.astype(dtype).astype(jnp.float32)

  return params, jax.tree.map(rounded, vectors), rounded(g_BLHK)
