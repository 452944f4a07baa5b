"""Checks that the parameters of encodings and variants have the axes of their names."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from transformer_jax.axes import Dims, axes_of
from transformer_jax.members import call, kind_of
from transformer_jax.positions.base import Params
from transformer_jax.spec import SpecError


def check_params(where: str, init: Callable[[Dims], Params], dims: Dims) -> Params:
  """Returns the shapes of parameters; raises SpecError where names and axes differ.

  where   the method in error messages, as in "Rope.init"
  init    (dims) -> parameters; it is traced only
  """
  params = call(where, jax.eval_shape, lambda: init(dims))
  if not isinstance(params, dict):
    raise SpecError(f"{where} returns {kind_of(params)}; return a dict of arrays")
  for name, x in params.items():
    if not hasattr(x, "shape"):
      raise SpecError(f"{where} returns {name} = {kind_of(x)}; return arrays by name")
    if axes_of(name) or _by_head(init, dims, name, x.shape):
      check_axes(f"{where}: parameter '{name}'", name, x.shape, dims)
    if not jnp.issubdtype(x.dtype, jnp.floating):
      raise SpecError(
        f"{where}: parameter '{name}' holds {x.dtype}, which has no gradient; return it"
        " from constants(dims), or make it float32"
      )
  return params


def _by_head(init: Callable, dims: Dims, name: str, shape: tuple[int, ...]) -> bool:
  """Returns whether a parameter's shape depends on H, whatever its name."""
  more = dataclasses.replace(dims, H=2 * dims.H)
  try:
    return jax.eval_shape(lambda: init(more))[name].shape != shape
  except (ValueError, TypeError, KeyError):  # made for one number of heads
    return dims.H in shape


def check_axes(where: str, name: str, shape: tuple[int, ...], dims: Dims) -> None:
  """Raises SpecError unless a name ends in the axes of its array."""
  letters, sizes = axes_of(name), {"H": dims.H, "K": dims.K, "D": dims.D}
  if len(letters) == len(shape):
    pairs = zip(letters, shape, strict=True)
    if all(sizes.get(letter, size) == size for letter, size in pairs):
      return
  letter_of = {size: letter for letter, size in reversed(sizes.items())}
  right = "".join(letter_of.get(size, "N") for size in shape)
  stem = name.removesuffix(f"_{letters}") if letters else name
  raise SpecError(
    f"{where} has shape {shape} with {dims.H} heads of width {dims.K}, and a name ends"
    f" in the axes of its array; call it '{stem}{'_' * bool(right)}{right}'"
  )
