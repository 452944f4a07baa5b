"""Convolutions along a text, and the inputs of them that a cache keeps."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from transformer_jax.axes import whole
from transformer_jax.devices import along_text, text_parts
from transformer_jax.mesh_shape import SEQUENCE
from transformer_jax.positions import Coords, coords
from transformer_jax.positions.shared.short_convolution import mix, neighbours
from transformer_jax.spec import SpecError

Arrays = dict[str, jax.Array]
Shaped = jax.Array | jax.ShapeDtypeStruct
ACTIVATIONS = {"none": lambda x: x, "silu": jax.nn.silu}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Recent:
  """Inputs of convolutions of the newest tokens, which those of later ones read.

  inputs   {name: [B, N - 1, ...]}, for N tokens that the longest convolution reads
  at       their coordinates

  >>> x_BLD = jnp.arange(4.0).reshape(1, 4, 1)
  >>> taps, at = {"x": jnp.ones((1, 3))}, coords.consecutive(1, 4)
  >>> whole, _ = convolve({"x": x_BLD}, taps, at)
  >>> whole["x"].ravel().tolist()
  [0.0, 1.0, 3.0, 6.0]
  >>> recent, found = none_yet({"x": x_BLD}, taps, B=1), []
  >>> for n in range(4):
  ...   new = {"x": x_BLD[:, n : n + 1]}
  ...   mixed, recent = convolve(new, taps, coords.consecutive(1, 1, n), recent)
  ...   found.append(mixed["x"].item())
  >>> found
  [0.0, 1.0, 3.0, 6.0]
  """

  inputs: Arrays
  at: Coords


def none_yet(
  inputs: Mapping[str, Shaped], taps: Mapping[str, Shaped], B: int
) -> Recent:
  """Returns what is kept before the first token of B texts.

  inputs, taps   arguments of `convolve`, or their shapes
  """
  longest = _longest(taps)
  kept = {
    name: jnp.zeros((B, longest - 1, *inputs[name].shape[2:]), inputs[name].dtype)
    for name in taps
  }
  return Recent(kept, coords.absent(B, longest - 1))


def convolve(
  inputs: Arrays, taps: Arrays, at: Coords, recent: Recent | None = None
) -> tuple[Arrays, Recent | None]:
  """Returns the inputs with those convolved that have taps, and what to keep of them.

  inputs   {name: [B, L, ...]} of the new tokens
  taps     {name: [..., N]}, of each feature the weight of the token n back
  at       coordinates of the new tokens
  recent   what is kept of the tokens before; None: there are none

  Devices that split the text send one another the last tokens of their parts.
  """
  new = Recent({name: inputs[name] for name in taps}, at.replace(data={}))
  devices = text_parts()
  if taps and 1 < devices <= at.order_BL.shape[1]:
    mixed, newest = _on_devices(devices, new, taps, recent)
  elif recent is None:
    near = neighbours(at, _longest(taps))
    mixed, newest = {n: mix(x, taps[n], near) for n, x in new.inputs.items()}, None
  else:
    mixed, newest = _after(recent, new, taps)
  return inputs | mixed, newest


def _after(before: Recent, new: Recent, taps: Arrays) -> tuple[Arrays, Recent]:
  """Returns the new inputs convolved, and the newest to keep.

  before   tokens before the new ones
  """
  L, both = new.at.order_BL.shape[1], _both(before, new)
  near = neighbours(both.at, _longest(taps))
  mixed = {n: mix(x, taps[n], near)[:, -L:] for n, x in both.inputs.items()}
  return mixed, _newest(both, _longest(taps) - 1)


def _on_devices(devices, new, taps, recent):
  """Returns `_after` of a text that devices split, each with the ends of earlier parts.

  devices   that split the text
  new       inputs of the new tokens
  taps      weights
  recent    inputs before them, or None: there are none
  """
  L, B = new.at.order_BL.shape[1], max(len(x) for x in new.inputs.values())
  nothing = none_yet(new.inputs, taps, B)
  padding = Recent(
    {n: jnp.zeros((B, -L % devices, *x.shape[2:])) for n, x in new.inputs.items()},
    coords.absent(B, -L % devices),
  )

  def of_part(new, shared):
    taps, before = shared
    end = _newest(_both(nothing, new), _longest(taps) - 1)
    ends = jax.lax.all_gather(end, SEQUENCE, axis=1)  # [B, devices, N - 1, ...]
    earlier_n1 = (jnp.arange(devices) < jax.lax.axis_index(SEQUENCE))[:, None]
    order = jnp.where(earlier_n1, ends.at.order_BL, -1)  # later ones: no tokens
    earlier = Recent(ends.inputs, ends.at.replace(order_BL=order))
    mixed, _ = _after(_both(before, _in_rows(earlier)), new, taps)
    return mixed, _newest(_both(before, _in_rows(ends)), _longest(taps) - 1)

  before = nothing if recent is None else recent
  mixed, newest = along_text(of_part)(_both(new, padding), (taps, before))
  mixed = {name: x[:, :L] for name, x in mixed.items()}
  return mixed, None if recent is None else newest


def _both(old: Recent, new: Recent) -> Recent:
  """Returns the inputs of tokens, the new ones after the old ones."""
  arrays = [*old.inputs.values(), *new.inputs.values(), old.at.order_BL]
  B = max(map(len, arrays))
  return jax.tree.map(functools.partial(_joined, B), old, new)


def _newest(tokens: Recent, count: int) -> Recent:
  """Returns so many of the newest tokens; padding may stand between them."""
  order_BM = jnp.argsort(tokens.at.real_BL, axis=1, stable=True)  # tokens go last
  newest_BN = order_BM[:, order_BM.shape[1] - count :]
  return jax.tree.map(functools.partial(_places, newest_BN), tokens)


def _in_rows(ends: Recent) -> Recent:
  """Returns ends of parts, [B, devices, N - 1, ...], one after another."""
  return jax.tree.map(lambda x: x.reshape(len(x), -1, *x.shape[3:]), ends)


def check_options(part: Any) -> None:
  """Raises SpecError where a part's `kernel` or `activation` is impossible."""
  check_kernel(part)
  if part.activation not in ACTIVATIONS:
    raise SpecError(
      f"{part.name}: activation is {part.activation!r}; write none or silu"
    )


def check_kernel(part: Any) -> None:
  """Raises SpecError where a part's `kernel` is no number of tokens."""
  if not whole(part.kernel, 1):
    raise SpecError(
      f"{part.name}: kernel is {part.kernel!r}; write how many tokens it reads, as in"
      f" {part.name}(kernel=4)"
    )


def finished(
  part: Any, x: jax.Array, mixed: jax.Array, shift: jax.Array | None
) -> jax.Array:
  """Returns what becomes of a convolution, in the dtype of its input.

  part    has `activation` and `residual`
  x       its input
  mixed   the weighted sums
  shift   that is added to them, or None
  """
  mixed = mixed if shift is None else mixed + shift
  mixed = ACTIVATIONS[part.activation](mixed)
  return (x + mixed if part.residual else mixed).astype(x.dtype)


def _longest(taps: Mapping[str, Shaped]) -> int:
  """Returns the tokens that the longest convolution reads."""
  return max((x.shape[-1] for x in taps.values()), default=1)


def _joined(B: int, old: jax.Array, new: jax.Array) -> jax.Array:
  """Returns arrays of tokens, the new ones after the old ones, in B rows."""
  old, new = (jnp.broadcast_to(x, (B, *x.shape[1:])) for x in (old, new))
  return jnp.concatenate([old, new.astype(old.dtype)], axis=1)


def _places(place_BN: jax.Array, x: jax.Array) -> jax.Array:
  """Returns some places of x along its second axis."""
  return jnp.take_along_axis(x, jnp.expand_dims(place_BN, tuple(range(2, x.ndim))), 1)
