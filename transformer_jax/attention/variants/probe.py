"""A quick test of an attention variant: do its hooks fit, and keep what cores rely on?

`positions/probe.py` has the manner: eight tokens, four heads, NumPy on the host.
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax import numpy_interpreter
from transformer_jax.attention.projections import Projections
from transformer_jax.attention.variants.base import Variant
from transformer_jax.attention.variants.bound import BoundVariant
from transformer_jax.axes import Dims, axes_of
from transformer_jax.members import call, check_members, kind_of, outside, parts
from transformer_jax.positions.coords import Coords, absent
from transformer_jax.positions.probe import CUT, REST, L, difference, texts
from transformer_jax.positions.probe_layer import KEYS, SOME, apart_by, cut
from transformer_jax.positions.probe_shapes import check_axes, check_params
from transformer_jax.spec import SpecError

SIZES = Dims(V=11, D=32, H=4, F=8, L=16, E=8, G=4)
Arrays = dict[str, Any]


def check(attention: Variant, dims: Dims | None = None) -> None:
  """Raises SpecError where a variant of a user, or one inside, cannot work.

  dims   sizes of the model, for variants that do not take the small ones here
  """
  for variant in parts(attention, Variant):
    if outside(type(variant)):
      check_members(variant, Variant)
      probe(variant, dims or SIZES)


@functools.lru_cache(maxsize=256)
def probe(variant: Variant, dims: Dims = SIZES) -> "Findings":
  """Returns what a variant does; raises SpecError where cores could not rely on it."""
  try:
    return _probe(variant, SIZES)
  except SpecError as error:
    if dims is SIZES:
      raise
    try:
      return _probe(variant, dims)  # it may be made for other sizes
    except SpecError:
      raise error from None


def _probe(variant: Variant, dims: Dims) -> "Findings":
  findings = Findings(variant, dims, Shapes(variant).check(dims))
  for problem in findings.problems():
    raise SpecError(f"{type(variant).__name__}{problem}")
  return findings


class Shapes:
  """Calls the hooks of a variant and checks the shapes of what they return."""

  def __init__(self, variant: Variant):
    self.variant, self.name = variant, type(variant).__name__

  def check(self, dims: Dims) -> Arrays:
    """Returns the shapes of the variant's own parameters; raises SpecError."""
    projections = call(f"{self.name}.projections", self.variant.projections)
    self.kind("projections", projections, Projections)
    try:
      sizes = projections.fit(dims).sizes(dims)
    except ValueError:  # these heads cannot be arranged so, in its own words
      sizes = dataclasses.replace(dims, E=dims.K)
    for form, args in (("layer", (0,)), ("cross", ()), ("bidirectional", ())):
      self.form(form, args)
    weights = call(f"{self.name}.weights", self.variant.weights, sizes)
    for name, (shape, _) in weights.items():
      check_axes(f"{self.name}.weights: '{name}'", name, shape, dims)
    init = lambda sizes: self.variant.init(jax.random.key(0), sizes)
    params = check_params(f"{self.name}.init", init, sizes)
    of = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
    shapes = {**params, **{name: of(*shape) for name, (shape, _) in weights.items()}}
    x_BMD, k_BMHK = of(2, 7, dims.D), of(2, 7, dims.H, dims.K)
    o_BLHE, at = of(2, 5, dims.H, sizes.E), jax.eval_shape(lambda: absent(2, 7))
    jax.eval_shape(self.run, shapes, x_BMD, k_BMHK, o_BLHE, at)
    return shapes

  def form(self, hook: str, args: tuple) -> None:
    try:
      form = getattr(self.variant, hook)(*args)
    except ValueError:  # there is none, in the variant's own words
      return
    self.kind(hook, form, Variant)

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
      one_head = hook in ("dot", "logits", "pointwise")
      cure = "it is called for one head, whose params['x_H'] is one number"
      raise SpecError(
        f"{self.name}.{hook} returns {jnp.shape(found)} where {axes} must be {wanted};"
        f" {cure if one_head else 'return ' + axes}"
      )

  def run(self, params: Arrays, x_BMD, k_BMHK, o_BLHE, at: Coords) -> int:
    """Calls each hook that the variant uses with a tile of 5 queries and 7 keys."""
    q_BLHK, q_at = k_BMHK[:, :5], cut(at, slice(0, 5))
    s_BHLM = jnp.einsum("BLHK,BMHK->BHLM", q_BLHK, k_BMHK)
    one = {n: x[0] if axes_of(n).startswith("H") else x for n, x in params.items()}
    s_LM, H = s_BHLM[0, 0], q_BLHK.shape[2]
    scale = self.call("scale", params, q_BLHK.shape[-1])
    if jnp.shape(scale) not in ((), (H,)):
      self.same("scale", scale, (H,), "scale_H, or a number,")
    one_scale = scale[0] if jnp.ndim(scale) else scale
    calls = {
      "condition": lambda: self.pair("condition", (params, q_BLHK, k_BMHK)),
      "features": lambda: self.pair("features", (params, q_BLHK, k_BMHK, scale)),
      "dot": lambda: self.one("dot", one, q_BLHK[0, :, 0], k_BMHK[0, :, 0], one_scale),
      "logits": lambda: self.one("logits", one, s_LM),
      "pointwise": lambda: self.one("pointwise", one, s_LM, s_LM[:, :1]),
      "mask": lambda: self.mask(q_at, at),
      "sink_logit": lambda: self.sink_logit(params, H),
      "weigh": lambda: self.weigh(params, s_BHLM),
      "values": lambda: self.width("values", params, k_BMHK),
      "mixed": lambda: self.width("mixed", params, o_BLHE),
      "output": lambda: self.output(params, x_BMD[:, :5], o_BLHE),
    }
    for hook, check_hook in calls.items():
      if self.variant.overrides(hook):
        check_hook()
    return 0

  def one(self, hook: str, params: Arrays, *args: Any) -> None:
    self.same(hook, self.call(hook, params, *args), (5, 7), "one head's [L, M]")

  def pair(self, hook: str, args: tuple) -> None:
    """Checks what is made of queries and keys."""
    found = self.call(hook, *args)
    if not isinstance(found, tuple) or len(found) != 2:
      raise SpecError(f"{self.name}.{hook} returns {kind_of(found)}; return (q, k)")
    width = jnp.shape(found[0])[-1:]
    for x, like, axes in zip(found, args[1:3], ("q_BLHK", "k_BMHK"), strict=True):
      self.same(hook, x, (*like.shape[:3], *width), axes)

  def sink_logit(self, params: Arrays, H: int) -> None:
    found = self.call("sink_logit", params)
    if jnp.shape(found) != (1,):
      self.same("sink_logit", found, (H,), "logit_H")

  def width(self, hook: str, params: Arrays, x: jax.Array) -> None:
    """Checks what keeps the shape of values or of their mixtures."""
    self.same(hook, self.call(hook, params, x), x.shape, "an array as wide as it got")

  def output(self, params: Arrays, x_BLD: jax.Array, o_BLHE: jax.Array) -> None:
    found = self.call("output", params, x_BLD, o_BLHE)
    self.same("output", found, o_BLHE.shape, "o_BLHE")

  def mask(self, q_at: Coords, k_at: Coords) -> None:
    found = self.call("mask", q_at, k_at)
    spread = jnp.shape(found)
    if jnp.asarray(found).dtype != bool or (spread and spread[1:] != (5, 7)):
      raise SpecError(
        f"{self.name}.mask returns {spread} of {jnp.asarray(found).dtype}; return"
        " True or False for each query and key, [B, L, M]"
      )

  def weigh(self, params: Arrays, s_BHLM: jax.Array) -> None:
    found = self.call("weigh", params, s_BHLM, s_BHLM[:, :1] > 0)
    self.same("weigh", found, s_BHLM.shape, "w_BHLM")


class Findings:
  """What a variant's hooks make of eight tokens in several places."""

  def __init__(self, variant: Variant, dims: Dims, shapes: Arrays):
    self.variant, self.dims = variant, dims
    random = np.random.default_rng(0)
    normal = lambda *shape: np.asarray(random.normal(size=shape), np.float32)
    of = lambda: (normal(1, L, dims.D), *normal(3, 1, L, dims.H, dims.K))
    self.given, self.other = of(), of()
    sizes = dataclasses.replace(dims, E=dims.K)
    start = numpy_interpreter.evaluate(lambda: variant.init(jax.random.key(0), sizes))
    near = lambda x: np.where(x == 0, 0.2, x * 0.2) * normal(*x.shape)
    moved = {name: (x + near(x)).astype(np.float32) for name, x in start.items()}
    more = {n: 0.3 * normal(*x.shape) for n, x in shapes.items() if n not in moved}
    self.params = moved | more
    self.base, self.first, self.packed = texts()
    self.run = self.trace(self.base, *self.given)
    self.usual = self.run(self.params, *self.given, self.base)

  def trace(self, at: Coords, *given: Any) -> Any:
    run = functools.partial(act, self.variant)
    return numpy_interpreter.trace(run, self.params, *given, at)

  def change(self, at: Coords, given: tuple | None = None, n: int = CUT) -> float:
    """Returns by how much outputs of the first n tokens differ from the base's."""
    out = self.run(self.params, *(given or self.given), at)["output"]
    return difference(self.usual["output"][:, :n], out[:, :n])

  @functools.cached_property
  def future(self) -> float:
    """By how much later tokens change earlier ones."""
    pairs = zip(self.given, self.other, strict=True)
    given = tuple(np.concatenate([a[:, :CUT], b[:, CUT:]], axis=1) for a, b in pairs)
    return self.change(self.base, given)

  @functools.cached_property
  def room(self) -> float:
    """By how much places change a text that hold no token, or are not there."""
    given, at = [x[:, :CUT] for x in self.given], cut(self.base, slice(0, CUT))
    out = self.trace(at, *given)(self.params, *given, at)["output"]
    missing = difference(self.usual["output"][:, :CUT], out)
    return max(missing, self.change(self.first))

  @functools.cached_property
  def border(self) -> float:
    """By how much the text before it in the row changes a text."""
    alone = tuple(np.roll(x, -REST, axis=1) for x in self.given)
    text = self.run(self.params, *alone, self.first)["output"]
    row = self.run(self.params, *self.given, self.packed)["output"]
    return difference(row[:, REST:], text[:, :CUT])

  @functools.cached_property
  def idle(self) -> list[str]:
    """Parameters without any gradient."""

    def total(params: Arrays, *given: Any) -> jax.Array:
      out_N = jnp.ravel(act(self.variant, params, *given)["output"])
      return jnp.vdot(out_N, jnp.sin(1.0 + jnp.arange(out_N.size)))

    args = self.params, *self.given, self.base
    grads = numpy_interpreter.evaluate(jax.grad(total), *args) if self.params else {}
    return [name for name, x in grads.items() if not np.any(x != 0)]

  def problems(self) -> Iterator[str]:
    """Yields what cores could not rely on, in sentences after the class's name."""
    for name, found in self.usual["apart"].items():
      if found > 1e-3:
        yield LOCAL[name]
    if self.usual["unseen"] > 1e-6:
      yield (
        ".weigh gives weight to keys that a query must not see; return"
        " jnp.where(mask_B1LM, w_BHLM, 0.0), after a sum over what is seen alone"
      )
    if self.future > 1e-3:
      yield (
        ": what later tokens hold changes earlier ones; leave keys out of every sum"
        " where mask_B1LM is False"
      )
    if self.room > 1e-3:
      yield (
        ": places without a token change the others, so that a cache with room would"
        " differ; count keys by mask_B1LM, never by the shape of an array"
      )
    if self.border > 1e-3:
      yield (
        " reads over the border of two texts in one row; leave keys out of every sum"
        " where mask_B1LM is False"
      )
    for name in self.idle:
      yield (
        f": parameter '{name}' has no gradient, because no hook computes with it; read"
        f" params['{name}'] in a hook, or leave it out"
      )


LOCAL = {
  "condition": ".condition of some tokens differs from that of all, as in decoding:"
  " change each by itself",
  "features": ".features of some tokens differ from those of all: make them of each"
  " token by itself",
  "dot": ".dot of a tile differs from that part of the whole, so that cores would"
  " differ: read one query and one key at a time",
  "logits": ".logits of a tile differ from that part of the whole, so that cores would"
  " differ: change each score by itself, or use weigh(), which gets whole rows",
  "pointwise": ".pointwise of a tile differs from that part of the whole, so that cores"
  " would differ: weigh each score by itself, or use weigh(), which gets whole rows",
  "mask": ".mask of a tile differs from that part of the whole, so that cores would"
  " differ: decide for each query and key by their own coordinates",
  "values": ".values of some tokens differ from those of all, as in decoding: change"
  " each value by itself",
  "mixed": ".mixed of some tokens differs from that of all, as in decoding: change"
  " each mixture by itself",
  "output": ".output of some tokens differs from that of all, as in decoding: change"
  " each token by itself",
}


def act(
  variant: Variant, params: Arrays, x_BLD, q_BLHK, k_BLHK, v_BLHK, at: Coords
) -> dict[str, Any]:
  """Returns what attention makes of one row of tokens with this variant.

  output   [1, L, H, K]
  unseen   the largest weight of a key that is not seen
  apart    by how much hooks differ on a part of the tokens
  """
  bound, apart = BoundVariant(variant, params), {}
  queries, keys = cut(at, SOME), cut(at, KEYS)
  q, k = variant.condition(params, q_BLHK, k_BLHK)
  scale = variant.scale(params, q.shape[-1])
  s_BHLM, mask_BLM = bound.dot(q, k, scale), bound.mask(at, at)
  logits_BHLM = bound.logits(s_BHLM)
  w_BHLM = bound.weigh(logits_BHLM, mask_BLM)
  unseen_BHLM = jnp.where(mask_BLM[:, None], 0.0, w_BHLM)
  mixed_BLHK = jnp.einsum("BHLM,BMHK->BLHK", w_BHLM, variant.values(params, v_BLHK))
  o_BLHK = variant.mixed(params, mixed_BLHK)
  out_BLHK = variant.output(params, x_BLD, o_BLHK)
  tile = lambda x_BHLM: x_BHLM[:, :, SOME, KEYS]
  uses = variant.overrides
  if uses("condition"):
    qk_part = variant.condition(params, q_BLHK[:, SOME], k_BLHK[:, KEYS])
    apart["condition"] = apart_by((q[:, SOME], k[:, KEYS]), qk_part)
  if uses("features") or uses("dot"):
    part = bound.dot(q[:, SOME], k[:, KEYS], scale)
    apart["features" if uses("features") else "dot"] = apart_by(tile(s_BHLM), part)
  if uses("logits"):
    apart["logits"] = apart_by(tile(logits_BHLM), bound.logits(tile(s_BHLM)))
  if uses("pointwise"):
    count_BL = jnp.sum(mask_BLM, axis=-1)
    whole = bound.pointwise(logits_BHLM, count_BL)
    part = bound.pointwise(tile(logits_BHLM), count_BL[:, SOME])
    apart["pointwise"] = apart_by(tile(whole), part)
  if uses("mask"):
    part_BLM = bound.mask(queries, keys)
    apart["mask"] = jnp.max(1.0 * (part_BLM != mask_BLM[:, SOME, KEYS]))
  if uses("values"):
    whole, part = (variant.values(params, v) for v in (v_BLHK, v_BLHK[:, SOME]))
    apart["values"] = apart_by(whole[:, SOME], part)
  if uses("mixed"):
    apart["mixed"] = apart_by(
      o_BLHK[:, SOME], variant.mixed(params, mixed_BLHK[:, SOME])
    )
  if uses("output"):
    part = variant.output(params, x_BLD[:, SOME], o_BLHK[:, SOME])
    apart["output"] = apart_by(out_BLHK[:, SOME], part)
  unseen = jnp.max(jnp.abs(unseen_BHLM))
  return {"output": out_BLHK, "unseen": unseen, "apart": apart}
