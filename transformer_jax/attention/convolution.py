"""Convolutions along a text, and the inputs of them that a cache keeps."""

import dataclasses
import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from transformer_jax.positions import Coords, coords
from transformer_jax.positions.shared.convolution import mix, neighbours

Arrays = dict[str, jax.Array]
Shaped = jax.Array | jax.ShapeDtypeStruct


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
  """
  longest = _longest(taps)
  mixed = {name: inputs[name] for name in taps}
  if recent is None:
    near = neighbours(at, longest)
    return inputs | {n: mix(x, taps[n], near) for n, x in mixed.items()}, None
  B, L = recent.at.order_BL.shape[0], at.order_BL.shape[1]
  joined = functools.partial(_joined, B)
  both = jax.tree.map(joined, recent, Recent(mixed, at.replace(data={})))
  near = neighbours(both.at, longest)
  mixed = {n: mix(x, taps[n], near)[:, -L:] for n, x in both.inputs.items()}
  # Padding may stand between tokens: those that are there go last.
  newest_BN = jnp.argsort(both.at.real_BL, axis=1, stable=True)[:, L:]
  return inputs | mixed, jax.tree.map(functools.partial(_places, newest_BN), both)


def _longest(taps: Mapping[str, Shaped]) -> int:
  """Returns the tokens that the longest convolution reads."""
  return max((x.shape[-1] for x in taps.values()), default=1)


def _joined(B: int, old: jax.Array, new: jax.Array) -> jax.Array:
  """Returns arrays of tokens, the new ones after the old ones, in B rows."""
  new = jnp.broadcast_to(new, (B, *new.shape[1:])).astype(old.dtype)
  return jnp.concatenate([old, new], axis=1)


def _places(place_BN: jax.Array, x: jax.Array) -> jax.Array:
  """Returns some places of x along its second axis."""
  return jnp.take_along_axis(x, jnp.expand_dims(place_BN, tuple(range(2, x.ndim))), 1)
