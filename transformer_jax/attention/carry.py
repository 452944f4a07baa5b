"""Carry: arrays that layers of one stack hand on, besides the residual stream."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Carry:
  """What earlier layers wrote, by name; empty in models whose parts read nothing.

  A loop over layers needs the same arrays before each of them: there a name may be
  reserved before it is written.

  arrays    pytrees by name; `token_BL`: ids of the tokens
  written   whether a reserved name has been written

  >>> first, carry = Carry().once("value", jnp.ones(2))
  >>> later, carry = carry.once("value", jnp.zeros(2))
  >>> print(first, later, list(carry.arrays))
  [1. 1.] [1. 1.] ['value']
  """

  arrays: dict[str, Any] = dataclasses.field(default_factory=dict)
  written: dict[str, jax.Array] = dataclasses.field(default_factory=dict)

  def put(self, name: str, x: Any) -> "Carry":
    """Returns the carry with x under a name."""
    return dataclasses.replace(self, arrays=self.arrays | {name: x})

  def once(self, name: str, x: jax.Array) -> tuple[jax.Array, "Carry"]:
    """Returns what the first layer gave under a name, x if this is it; the carry."""
    if name not in self.arrays:
      return x, self.put(name, x)
    if name not in self.written:
      return self.arrays[name], self
    x = jnp.where(self.written[name], self.arrays[name], x)
    written = self.written | {name: jnp.ones_like(self.written[name])}
    return x, Carry(self.arrays | {name: x}, written)

  def reserve(self, shapes: Mapping[str, jax.ShapeDtypeStruct]) -> "Carry":
    """Returns the carry with names that are not written yet."""
    zeros = {name: jnp.zeros(x.shape, x.dtype) for name, x in shapes.items()}
    false = {name: jnp.zeros((), bool) for name in shapes}
    return Carry(self.arrays | zeros, self.written | false)
