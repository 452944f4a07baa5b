"""Probe of an attention variant: the shapes of its hooks, and the contract of cores.

As in `positions/probe/`: eight tokens, here of four heads, in NumPy on the host.
"""

import functools

from transformer_jax.attention.variants.base import Variant
from transformer_jax.attention.variants.probe.variant_findings import VariantFindings
from transformer_jax.attention.variants.probe.variant_problems import problems
from transformer_jax.attention.variants.probe.variant_shapes import VariantShapes
from transformer_jax.axes import Dims
from transformer_jax.members import check_members, outside, parts
from transformer_jax.spec import SpecError

SIZES = Dims(V=11, D=32, H=4, F=8, L=16, E=8, G=4)


def check(attention: Variant, dims: Dims | None = None) -> None:
  """Raises SpecError if a user's variant, or one inside it, breaks the contract.

  dims   sizes of the model, for variants that do not fit the small sizes here
  """
  for variant in parts(attention, Variant):
    if outside(type(variant)) and not variant.mixer:  # see mixers/mixer_probe.py
      check_members(variant, Variant)
      probe(variant, dims or SIZES)


@functools.lru_cache(maxsize=256)
def probe(variant: Variant, dims: Dims = SIZES) -> VariantFindings:
  """Returns the findings of a variant; raises SpecError if it breaks the contract."""
  try:
    return _probe(variant, SIZES)
  except SpecError as error:
    if dims is SIZES:
      raise
    try:
      return _probe(variant, dims)  # it may be made for other sizes
    except SpecError:
      raise error from None


def _probe(variant: Variant, dims: Dims) -> VariantFindings:
  findings = VariantFindings(variant, dims, VariantShapes(variant).check(dims))
  for problem in problems(findings):
    raise SpecError(f"{type(variant).__name__}{problem}")
  return findings
