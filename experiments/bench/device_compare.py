"""Comparison of a core with `dense` on this device, as `auto` checks its kernels.

Outputs and all gradients, for each type and mode. Encodings that change vectors alone,
such as RoPE, are `none` to a core, which gets the changed vectors.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.attention.cores import cores
from transformer_jax.attention.cores.context import Context
from transformer_jax.attention.cores.cudnn import HOOKS
from transformer_jax.attention.cores.self_check import check_inputs, trial
from transformer_jax.attention.cores.self_check.deviations import Deviation, deviations
from transformer_jax.attention.cores.self_check.scheme import CallScheme, scheme_of
from transformer_jax.attention.variants.base import attentions
from transformer_jax.attention.variants.bound_variant import BoundVariant
from transformer_jax.axes import Dims
from transformer_jax.positions import bind, coords, positions

DTYPES = "float32", "bfloat16"
MODES = {
  "train": "a causal text, packed texts with padding, one that looks both ways",
  "packed": "packed texts with padding that share their coordinates",
  "gqa": "as train, with fewer heads of keys than of queries",
  "window": "as train, with a sliding window",
}


@dataclasses.dataclass(frozen=True)
class ComparedShape:
  """Sizes of the compared attention; no block size divides the length.

  L        tokens of each text
  H, G     heads of queries, and of keys in the mode `gqa`
  K        width of a head
  window   keys in the mode `window`

  >>> ComparedShape().variant("gqa")
  'gqa(2)'
  """

  L: int = 330
  H: int = 4
  G: int = 2
  K: int = 64
  window: int = 100

  def variant(self, mode: str) -> str:
    """Returns the spec of the attention variant of a mode."""
    specs = {"gqa": f"gqa({self.G})", "window": f"window({self.window})"}
    return specs.get(mode, "multihead")

  def scheme(self, encoding: str, dtype: str, mode: str) -> CallScheme:
    """Returns what `dense` computes in a mode, as the self-check of `auto` has it."""
    L, H, K = self.L, self.H, self.K
    G = self.G if mode == "gqa" else H
    dims = Dims(V=8, D=H * K, H=H, F=8, L=L, K=K, G=G)
    built, variant = positions.build(encoding), attentions.build(self.variant(mode))

    def bound(key):
      return bind(built, built.init(key, dims), dims), variant.init(key, dims)

    position, params = jax.eval_shape(bound, jax.random.key(0))
    q, k = (jnp.zeros((3, L, heads, K), dtype) for heads in (H, G))
    at = coords.consecutive(1 if mode == "packed" else 3, L)
    context = Context(at, at, position, K**-0.5, BoundVariant(variant, params))
    return scheme_of(cores.build("dense"), q, k, k, context)


def acting() -> tuple[list[str], list[str]]:
  """Returns the names of encodings that a core computes itself, and of the others."""
  acts = {n: any(map(positions.build(n).overrides, HOOKS)) for n in sorted(positions)}
  return [n for n in acts if acts[n]], [n for n in acts if not acts[n] and n != "none"]


def compare(encoding: str, core: str, shape: ComparedShape) -> dict[str, Any]:
  """Returns the outcome of each type and mode.

  An outcome has `passed`, with the worst array, its error and tolerance; or `refused`
  or `failed`, with a sentence.

  encoding, core   specs
  shape            sizes
  """
  outcomes = {}
  for dtype in DTYPES:
    for mode in MODES:
      scheme = shape.scheme(encoding, dtype, mode)
      outcomes[f"{dtype} {mode}"] = _outcome(core, scheme)
  return outcomes


def _outcome(core: str, scheme: CallScheme) -> dict[str, Any]:
  tested = cores.build(core)
  arrays = check_inputs.make(scheme)
  vectors = (jnp.asarray(arrays[name]) for name in ("q", "k", "v"))
  reason = tested.refusal(scheme.encoding, scheme.variant) or tested.misfit(*vectors)
  if reason:
    return {"refused": reason}
  try:
    exact, usual = _reference(scheme)
    found = trial.run(tested, scheme, arrays)
  except Exception as error:  # compilers and devices have their own kinds of errors
    return {"failed": trial.words(error)}
  return verdict(deviations(found, usual, exact, scheme.dtypes[2]))


@functools.lru_cache(8)
def _reference(
  scheme: CallScheme,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
  """Returns results of `dense` in float32, and in the scheme's types."""
  arrays = check_inputs.make(scheme)
  return trial.exact(scheme.core, scheme, arrays), trial.run(
    scheme.core, scheme, arrays
  )


def verdict(each: list[Deviation]) -> dict[str, Any]:
  """Returns whether all errors are within their tolerances, and the worst of them."""
  worst = max(each, key=lambda one: one.share)
  return {
    "passed": all(one.fine for one in each),
    "worst": worst.name,
    "error": worst.error,
    "tolerance": worst.allowed,
  }
