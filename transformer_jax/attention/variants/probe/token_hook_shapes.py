"""Shapes of what a variant's hooks make of each token; nothing is computed."""

from typing import Any

import jax
import jax.numpy as jnp

from transformer_jax.attention.variants.base import Variant
from transformer_jax.axes import axes_of
from transformer_jax.members import call, kind_of
from transformer_jax.positions.coords import Coords
from transformer_jax.positions.probe.one_layer import cut
from transformer_jax.spec import SpecError

HookArrays = dict[str, Any]


class TokenHookShapes:
  """Checks of hooks of tokens: convolutions, token data and temperatures.

  >>> TokenHookShapes(Variant()).name
  'Variant'
  """

  def __init__(self, variant: Variant):
    self.variant, self.name = variant, type(variant).__name__

  def kind(self, hook: str, found: Any, wanted: type) -> None:
    if not isinstance(found, wanted):
      raise SpecError(
        f"{self.name}.{hook} returns {kind_of(found)}; return {wanted.__name__} or one"
        " that inherits it"
      )

  def call(self, hook: str, *args: Any) -> Any:
    known = ", ".join(args[0]) if isinstance(args[0], dict) else ""
    return call(f"{self.name}.{hook}", getattr(self.variant, hook), *args, known=known)

  def same(self, hook: str, found: Any, wanted: tuple, axes: str) -> None:
    if jnp.shape(found) != wanted:
      one_head = hook in ("dot", "score", "logits", "pointwise")
      cure = "it is called for one head, whose params['x_H'] is one number"
      raise SpecError(
        f"{self.name}.{hook} returns {jnp.shape(found)} where {axes} must be {wanted};"
        f" {cure if one_head else 'return ' + axes}"
      )

  def taps(self, params: HookArrays, k_BMHK: jax.Array) -> None:
    taps = self.call("taps", params)
    if {*taps} != {*self.variant.convolves} or {*taps} - {"query", "key", "value"}:
      raise SpecError(
        f"{self.name}.taps returns those of {', '.join(taps) or 'nothing'}, and"
        f" `convolves` is {self.variant.convolves!r}; name the same there, of query,"
        " key and value"
      )
    for name, tap in taps.items():
      self.same("taps", tap, (*k_BMHK.shape[2:], *tap.shape[-1:]), "weights [H, K, N]")
      found = self.call("convolved", params, name, k_BMHK, k_BMHK)
      self.same("convolved", found, k_BMHK.shape, "x_BLHK")

  def read(
    self, params: HookArrays, x_BMD: jax.Array, k_BMHK: jax.Array, at: Coords
  ) -> tuple[Coords, Coords]:
    """Returns the coordinates of 5 queries and 7 keys, with their token data."""
    for hook in ("token_data", "accumulate"):
      if self.variant.overrides(hook):
        args = (x_BMD, k_BMHK) if hook == "token_data" else (at.data, at)
        at = at.replace(data=self.call(hook, params, *args))
        self.data(hook, at.data, x_BMD.shape[:2])
    return cut(at, slice(0, 5)), at

  def data(self, hook: str, data: Any, tokens: tuple[int, ...]) -> None:
    """Checks that token data is arrays by name, whose axes start with BL."""
    if not isinstance(data, dict):
      raise SpecError(f"{self.name}.{hook} returns {kind_of(data)}; return a dict")
    for name, x in data.items():
      letters, shape = axes_of(name), jnp.shape(x)
      if not letters.startswith("BL") or len(letters) != len(shape):
        raise SpecError(
          f"{self.name}.{hook}: '{name}' has the shape {shape}; let its name end in its"
          " axes, BL first, as in 'gate_BLH'"
        )
      if shape[:2] not in (tokens, (1, tokens[1])):
        raise SpecError(
          f"{self.name}.{hook}: '{name}' has the shape {shape}; its first axes must be"
          f" those of the tokens, {tokens}"
        )

  def temperature(self, params: HookArrays, q_BLHK: jax.Array, at: Coords) -> None:
    found = jnp.shape(self.call("temperature", params, at))
    try:
      fits = jnp.broadcast_shapes(found, q_BLHK.shape) == q_BLHK.shape
    except ValueError:
      fits = False
    if not fits:
      self.same("temperature", self.call("temperature", params, at), (), "t_BLH1")
