"""Whether two architectures have the same parts, layer by layer, however written."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

from transformer_jax.attention import Mixer, Variant
from transformer_jax.attention.variants.variant_sum import Sum
from transformer_jax.axes import Dims
from transformer_jax.models import Architecture
from transformer_jax.models.feedforward_kinds import Experts
from transformer_jax.positions.shared import schedule

# Options of computation and training, which the model's function does not depend on.
FREE = {
  *("core", "dtype", "scan", "remat", "dropout", "attention_dropout", "part"),
  "written_out",
}
OF_LAYERS = ("position", "attention", "norm_placement", "feedforward_kind")


def differences(
  ours: Architecture, theirs: Architecture
) -> Iterator[tuple[str, float]]:
  """Yields (line, share of the layers) for each field in which two models differ."""
  for field in dataclasses.fields(ours):
    name = field.name
    if name in FREE:
      continue
    if name in OF_LAYERS:
      yield from _of_layers(name, ours, theirs)
      continue
    here, there = getattr(ours, name), getattr(theirs, name)
    if name in ("dims", "decoder_dims"):
      there = there and _dims(ours, there)
    if not alike(here, there):
      yield f"{name} is {here}, where theirs is {there}", 1.0


def _of_layers(
  name: str, ours: Architecture, theirs: Architecture
) -> Iterator[tuple[str, float]]:
  """Yields a line for a part that differs in some layer, and the share of these."""
  layers = range(max(ours.encoders, ours.decoders))
  pairs = [
    [_settled(getattr(arch, name).layer(n), ours.dims) for arch in (ours, theirs)]
    for n in layers
  ]
  unlike = [n for n in layers if not alike(*pairs[n])]
  if not unlike:
    return
  here, there = pairs[unlike[0]]
  where = "" if len(unlike) == len(layers) else f" of layer {unlike[0]}"
  line = f"{name}{where} is {here}, where theirs is {there}"
  yield line, len(unlike) / len(layers)


def _settled(part: Any, dims: Dims) -> Any:
  """Returns a layer's part with its sizes written out, and sums in one order."""
  if isinstance(part, Mixer):
    return part.sized(dims)
  if isinstance(part, Experts):  # the rate of the balance is of training alone
    return dataclasses.replace(part.sized(dims), balance_rate=0.0)
  if isinstance(part, Variant):
    found = [one for one in _terms(part) if one != Variant()] or [Variant()]
    return found[0] if len(found) == 1 else Sum(tuple(sorted(found, key=repr)))
  if isinstance(part, schedule.Part):  # whatever its place in the list
    return _settled(part.encoding, dims)
  unsized = getattr(part, "max_positions", 0) is None
  return dataclasses.replace(part, max_positions=dims.L) if unsized else part


def _terms(variant: Variant) -> Iterator[Variant]:
  """Yields the parts of a sum, and of sums in it; else the variant."""
  if not isinstance(variant, Sum):
    yield variant
    return
  for part in variant.parts:
    yield from _terms(part)


def _dims(ours: Architecture, theirs: Dims) -> Dims:
  """Returns their sizes, with those of ours that the family's model does not have.

  Positions limit the length, not the sizes; mixers have heads of their own.
  """
  theirs = dataclasses.replace(theirs, L=ours.dims.L)
  layers = [ours.attention.layer(n) for n in range(ours.decoders)]
  if not (layers and all(layer.mixer for layer in layers)):
    return theirs
  own = {letter: getattr(ours.dims, letter) for letter in "HKEG"}
  return dataclasses.replace(theirs, **own)


def alike(here: Any, there: Any) -> bool:
  """Returns whether two values are equal, floats but for rounding.

  >>> alike((1, 0.1 + 0.2), (1, 0.3)), alike(1, 2)
  (True, False)
  """
  if isinstance(here, float) and isinstance(there, int | float):
    return math.isclose(here, there, rel_tol=1e-9, abs_tol=1e-12)
  if type(here) is not type(there):
    return here == there
  if isinstance(here, tuple):
    return len(here) == len(there) and all(map(alike, here, there))
  if dataclasses.is_dataclass(here):
    names = [field.name for field in dataclasses.fields(here)]
    return all(alike(getattr(here, n), getattr(there, n)) for n in names)
  return here == there
