"""Shapes of the results of a variant's hooks; nothing is computed."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from transformer_jax.attention.projections import Projections
from transformer_jax.attention.variants.base import Variant
from transformer_jax.attention.variants.probe.token_hook_shapes import (
  HookArrays,
  TokenHookShapes,
)
from transformer_jax.axes import Dims, axes_of
from transformer_jax.members import call, kind_of
from transformer_jax.positions.base import Tile
from transformer_jax.positions.coords import Coords, absent
from transformer_jax.positions.probe.parameter_shapes import check_axes, check_params
from transformer_jax.spec import SpecError


def _float(shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
  """Returns the shape of an array of float32."""
  return jax.ShapeDtypeStruct(shape, jnp.float32)


class VariantShapes(TokenHookShapes):
  """Checks of the shapes that the hooks of a variant return."""

  def check(self, dims: Dims) -> HookArrays:
    """Returns the shapes of the variant's parameters; raises SpecError."""
    projections = call(f"{self.name}.projections", self.variant.projections)
    self.kind("projections", projections, Projections)
    try:
      sizes = projections.fit(dims).sizes(dims)
    except ValueError:  # the projections do not fit these sizes
      sizes = dataclasses.replace(dims, E=dims.K)
    for form, args in (("layer", (0,)), ("cross", ()), ("bidirectional", ())):
      self.form(form, args)
    weights = call(f"{self.name}.weights", self.variant.weights, sizes)
    for name, (shape, _) in weights.items():
      check_axes(f"{self.name}.weights: '{name}'", name, shape, dims)
    init = functools.partial(self.variant.init, jax.random.key(0))
    params = check_params(f"{self.name}.init", init, sizes)
    shapes = {**params, **{name: _float(shape) for name, (shape, _) in weights.items()}}
    x_BMD, k_BMHK = _float((2, 7, dims.D)), _float((2, 7, dims.H, dims.K))
    o_BLHE, at = _float((2, 5, dims.H, sizes.E)), jax.eval_shape(lambda: absent(2, 7))
    jax.eval_shape(self.run, shapes, x_BMD, k_BMHK, o_BLHE, at)
    return shapes

  def form(self, hook: str, args: tuple) -> None:
    try:
      form = getattr(self.variant, hook)(*args)
    except ValueError:  # the variant does not have this form
      return
    self.kind(hook, form, Variant)

  def run(self, params: HookArrays, x_BMD, k_BMHK, o_BLHE, at: Coords) -> int:
    """Checks each hook that the variant overrides on a tile of 5 queries and 7 keys.

    params   shapes of the parameters
    x_BMD    shape of the tokens
    k_BMHK   shape of the keys
    o_BLHE   shape of the mixtures of values
    at       coordinates of the keys, as shapes
    """
    q_BLHK = k_BMHK[:, :5]
    s_BHLM = jnp.einsum("BLHK,BMHK->BHLM", q_BLHK, k_BMHK)
    one = {n: x[0] if axes_of(n).startswith("H") else x for n, x in params.items()}
    s_LM, H = s_BHLM[0, 0], q_BLHK.shape[2]
    scale = self.call("scale", params, q_BLHK.shape[-1])
    if jnp.shape(scale) not in ((), (H,)):
      self.same("scale", scale, (H,), "scale_H, or a number,")
    one_scale = scale[0] if jnp.ndim(scale) else scale
    q_at, at = self.read(params, x_BMD, k_BMHK, at)
    calls = {
      "taps": lambda: self.taps(params, k_BMHK),
      "temperature": lambda: self.temperature(params, q_BLHK, q_at),
      "score": lambda: self.score(one, q_BLHK, k_BMHK, q_at, at, s_LM, one_scale),
      "condition": lambda: self.pair("condition", (params, q_BLHK, k_BMHK)),
      "rotated": lambda: self.pair("rotated", (params, q_BLHK, k_BMHK)),
      "features": lambda: self.pair("features", (params, q_BLHK, k_BMHK, scale)),
      "dot": lambda: self.one("dot", one, q_BLHK[0, :, 0], k_BMHK[0, :, 0], one_scale),
      "logits": lambda: self.one("logits", one, s_LM),
      "pointwise": lambda: self.one("pointwise", one, s_LM, s_LM[:, :1]),
      "mask": lambda: self.mask(q_at, at),
      "select": lambda: self.select(params, q_BLHK, k_BMHK, q_at, at),
      "sink_logit": lambda: self.sink_logit(params, H),
      "weigh": lambda: self.weigh("weigh", params, s_BHLM),
      "weigh_at": lambda: self.weigh("weigh_at", params, s_BHLM, q_at, at),
      "values": lambda: self.width("values", params, k_BMHK),
      "mixed": lambda: self.width("mixed", params, o_BLHE),
      "own_value": lambda: self.output("own_value", params, x_BMD, o_BLHE, o_BLHE),
      "output": lambda: self.output("output", params, x_BMD, o_BLHE),
    }
    for hook, check_hook in calls.items():
      if self.variant.overrides(hook):
        check_hook()
    return 0

  def one(self, hook: str, params: HookArrays, *args: Any) -> None:
    self.same(hook, self.call(hook, params, *args), (5, 7), "one head's [L, M]")

  def pair(self, hook: str, args: tuple) -> None:
    """Checks a hook that returns (q, k)."""
    found = self.call(hook, *args)
    if not isinstance(found, tuple) or len(found) != 2:
      raise SpecError(f"{self.name}.{hook} returns {kind_of(found)}; return (q, k)")
    width = jnp.shape(found[0])[-1:]
    for x, like, axes in zip(found, args[1:3], ("q_BLHK", "k_BMHK"), strict=True):
      self.same(hook, x, (*like.shape[:3], *width), axes)

  def sink_logit(self, params: HookArrays, H: int) -> None:
    found = self.call("sink_logit", params)
    if jnp.shape(found) != (1,):
      self.same("sink_logit", found, (H,), "logit_H")

  def width(self, hook: str, params: HookArrays, x: jax.Array) -> None:
    """Checks a hook that returns an array in the shape of its argument."""
    self.same(hook, self.call(hook, params, x), x.shape, "an array as wide as it got")

  def output(
    self, hook: str, params: HookArrays, x_BMD: jax.Array, *heads: Any
  ) -> None:
    found = self.call(hook, params, x_BMD[:, :5], *heads)
    self.same(hook, found, heads[0].shape, "o_BLHE")

  def mask(self, q_at: Coords, k_at: Coords) -> None:
    found = self.call("mask", q_at, k_at)
    spread = jnp.shape(found)
    if jnp.asarray(found).dtype != bool or (spread and spread[1:] != (5, 7)):
      raise SpecError(
        f"{self.name}.mask returns {spread} of {jnp.asarray(found).dtype}; return"
        " True or False for each query and key, [B, L, M]"
      )

  def select(
    self, params: HookArrays, q_BLHK, k_BMHK, q_at: Coords, k_at: Coords
  ) -> None:
    mask_BLM = jnp.ones((2, 5, 7), bool)
    found = self.call("select", params, q_BLHK, k_BMHK, q_at, k_at, mask_BLM)
    if jnp.asarray(found).dtype != bool or jnp.shape(found)[-2:] != (5, 7):
      raise SpecError(
        f"{self.name}.select returns {jnp.shape(found)} of {jnp.asarray(found).dtype};"
        " return True or False for each head, query and key, [B, H, L, M]"
      )

  def weigh(
    self, hook: str, params: HookArrays, s_BHLM: jax.Array, *at: Coords
  ) -> None:
    found = self.call(hook, params, s_BHLM, s_BHLM[:, :1] > 0, *at)
    self.same(hook, found, s_BHLM.shape, "w_BHLM")

  def score(
    self,
    one: HookArrays,
    q_BLHK: jax.Array,
    k_BMHK: jax.Array,
    q_at: Coords,
    k_at: Coords,
    s_LM: jax.Array,
    scale: float | jax.Array,
  ) -> None:
    """Checks `score` on one head of one sequence.

    one              parameters of one head
    q_BLHK, k_BMHK   queries and keys
    q_at, k_at       their coordinates
    s_LM             scores
    scale            factor on dot products
    """

    def of_head(data: HookArrays) -> HookArrays:
      return {n: x[0, :, 0] if "H" in axes_of(n) else x[0] for n, x in data.items()}

    tile = Tile(
      q_LK=q_BLHK[0, :, 0],
      k_MK=k_BMHK[0, :, 0],
      pos_L=q_at.pos_BL[0],
      pos_M=k_at.pos_BL[0],
      mask_LM=s_LM > 0,
      q_data=of_head(q_at.data),
      k_data=of_head(k_at.data),
      scale=scale,
    )
    self.one("score", one, s_LM, tile)
