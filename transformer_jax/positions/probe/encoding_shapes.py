"""Checks of the shapes that an encoding's hooks return; nothing is computed."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from transformer_jax.axes import Dims, axes_of
from transformer_jax.members import call, kind_of
from transformer_jax.positions.base import (
  Params,
  PositionalEncoding,
  Tile,
  TrainContext,
)
from transformer_jax.positions.coords import Coords, absent
from transformer_jax.positions.probe.parameter_shapes import check_params
from transformer_jax.spec import SpecError

B, L, M = 2, 5, 7  # a tile of the first 5 of 7 tokens, as queries, and all as keys


def check_shapes(encoding: PositionalEncoding, dims: Dims) -> None:
  """Raises SpecError, naming the hook, where a result has the wrong type or shape."""
  name = type(encoding).__name__
  check_forms(encoding)
  init = functools.partial(encoding.init, jax.random.key(0))
  params = check_params(f"{name}.init", init, dims)
  constants = call(
    f"{name}.constants", jax.eval_shape, lambda: encoding.constants(dims)
  )
  at = jax.eval_shape(lambda: absent(B, M))
  at = at.replace(data={name: at.pos_BL for name in encoding.ids})
  x_BMD = jax.ShapeDtypeStruct((B, M, dims.D), jnp.float32)
  x_BMHK = jax.ShapeDtypeStruct((B, M, dims.H, dims.K), jnp.float32)
  hooks = Hooks(encoding)
  jax.eval_shape(hooks.run, dict(params) | dict(constants), x_BMD, x_BMHK, at)


def check_forms(encoding: PositionalEncoding) -> None:
  """Raises SpecError where `layer`, `cross` or `bidirectional` return no encoding."""
  for hook, args in (("layer", (0,)), ("cross", ()), ("bidirectional", ())):
    where = f"{type(encoding).__name__}.{hook}"
    try:
      form = getattr(encoding, hook)(*args)
    except ValueError:  # the encoding has no such form
      continue
    if not isinstance(form, PositionalEncoding):
      raise SpecError(
        f"{where} returns {kind_of(form)}; return an encoding, as self, or raise"
        " ValueError where there is none"
      )


class Hooks:
  """Shape checks of an encoding's hooks, called in the order of a layer."""

  def __init__(self, encoding: PositionalEncoding):
    self.encoding, self.name = encoding, type(encoding).__name__

  def run(self, params: Params, x_BMD: jax.Array, x_BMHK: jax.Array, at: Coords) -> int:
    """Calls the hooks of one forward pass; raises SpecError at the first wrong shape.

    params   parameters and constants by name
    x_BMD    token embeddings
    x_BMHK   stands for queries and for keys
    at       coordinates of the M tokens
    """
    self.assign_positions(at)
    x_BMD = self.embed(params, x_BMD, at)
    at = self.data(params, x_BMD, x_BMHK, at)
    q_at, q_BLHK = jax.tree.map(lambda x: x[:, :L], (at, x_BMHK))
    q_BLHK, k_BMHK = self.transform_qk(params, q_BLHK, x_BMHK, q_at, at)
    one = {n: x[0] if axes_of(n).startswith("H") else x for n, x in params.items()}
    self.bias(params, one, q_at.pos_BL[0], at.pos_BL[0])
    self.scores(params, one, q_BLHK, k_BMHK, q_at, at)
    return 0

  def uses(self, hook: str) -> bool:
    return self.encoding.overrides(hook) and getattr(self.encoding, hook) is not None

  def call(self, hook: str, *args: Any) -> Any:
    method = getattr(self.encoding, hook)
    has = ", ".join(n for n, _ in args[0].items()) if isinstance(args[0], dict) else ""
    return call(f"{self.name}.{hook}", method, *args, known=has)

  def same(self, hook: str, found: Any, wanted: tuple[int, ...], axes: str) -> None:
    """Raises SpecError unless an array has the shape that it must have."""
    shape = found if isinstance(found, tuple) else getattr(found, "shape", ())
    if shape != wanted:
      raise SpecError(
        f"{self.name}.{hook} returns {shape} where {axes} must be {wanted};"
        f" {CURE.get(hook, f'return {axes}')}"
      )

  def assign_positions(self, at: Coords) -> None:
    """Checks the result of `assign_positions`, in evaluation and in training."""
    for context in (
      (None, TrainContext(jax.random.key(0), 0.5, B))
      if self.uses("assign_positions")
      else ()
    ):
      found = self.call("assign_positions", context, at)
      if not isinstance(found, Coords):
        raise SpecError(
          f"{self.name}.assign_positions returns {kind_of(found)}; return"
          " at.replace(pos_BL=...)"
        )
      self.same("assign_positions", found.pos_BL, (B, M), "pos_BL")

  def embed(self, params: Params, x_BMD: jax.Array, at: Coords) -> jax.Array:
    if not self.uses("embed"):
      return x_BMD
    # `embed` gets the shared parameters only.
    shared = {n: x for n, x in params.items() if not self.encoding.in_layer(n)}
    try:
      found = self.call("embed", shared, x_BMD, at)
    except SpecError as error:
      missing = getattr(error.__cause__, "args", None) or (None,)
      if isinstance(error.__cause__, KeyError) and missing[0] in params:
        raise SpecError(
          f"{self.name}.embed reads the parameter '{missing[0]}', which in_layer puts"
          " into every layer; let in_layer return False for that name"
        ) from error
      raise
    self.same("embed", found, x_BMD.shape, "x_BLD")
    return found

  def data(self, params: Params, x_BMD, q_BMHK, at: Coords) -> Coords:
    """Returns the coordinates with the results of `token_data` and `accumulate`."""
    if not self.uses("token_data"):
      return at
    data = self.call("token_data", params, x_BMD, q_BMHK)
    data = self._named("token_data", data)
    at = at.replace(data=at.data | data)
    if self.uses("accumulate"):
      summed = self.call("accumulate", params, at.data, at)
      at = at.replace(data=self._named("accumulate", summed))
    return at

  def _named(self, hook: str, data: Any) -> dict[str, jax.Array]:
    """Returns token data; raises SpecError unless it is a dict of named BL arrays."""
    wanted = "return a dict of arrays with an entry for each token, whose names end in"
    wanted += " their axes, as gate_BLH"
    if not isinstance(data, dict):
      raise SpecError(f"{self.name}.{hook} returns {kind_of(data)} ; {wanted}")
    for name, x in data.items():
      if not axes_of(name).startswith("BL") or len(axes_of(name)) != jnp.ndim(x):
        raise SpecError(
          f"{self.name}.{hook} returns {name} of shape {jnp.shape(x)}; {wanted}"
        )
    return data

  def transform_qk(self, params: Params, q_BLHK, k_BMHK, q_at: Coords, k_at: Coords):
    """Returns (q_BLHK, k_BMHK), rotated; checks the shapes of all rotating hooks.

    params           parameters and constants
    q_BLHK, k_BMHK   queries and keys
    q_at, k_at       their coordinates, with token data
    """
    if self.uses("rotate"):
      found = self.call("rotate", params, q_BLHK, q_at.pos_BL)
      self.same("rotate", found, q_BLHK.shape, "x_BLHK")
    if self.uses("temperature"):
      shape = jnp.shape(self.call("temperature", params, q_at))
      if not _broadcasts(shape, q_BLHK.shape):
        self.same("temperature", shape, (*q_BLHK.shape[:3], 1), "t_BLH1")
    if not self.uses("transform_qk"):
      return q_BLHK, k_BMHK
    rotated = self.call("transform_qk", params, q_BLHK, k_BMHK, q_at, k_at)
    if not isinstance(rotated, tuple) or len(rotated) != 2:
      raise SpecError(
        f"{self.name}.transform_qk returns {kind_of(rotated)}; return (q, k)"
      )
    K = jnp.shape(rotated[0])[-1:]
    self.same("transform_qk", rotated[0], (*q_BLHK.shape[:3], *K), "q_BLHK")
    self.same("transform_qk", rotated[1], (*k_BMHK.shape[:3], *K), "k_BMHK")
    return rotated

  def bias(self, params: Params, one: Params, pos_L: jax.Array, pos_M: jax.Array):
    if self.uses("bias"):
      self.one_head("bias", params, one, (pos_L, pos_M), (L, M), "b_LM of one head")
    if self.uses("mask"):
      self.one_head("mask", params, one, (pos_L, pos_M), (L, M), "mask_LM of one head")

  def one_head(self, hook, params, one, args, wanted, axes) -> None:
    """Checks a one-head hook; accepts one written for all heads at once.

    params   parameters of all heads
    one      parameters of one head
    args     the other arguments of the hook
    wanted   shape of the result
    axes     its axes in error messages, as in "b_LM of one head"
    """
    try:
      found = self.call(hook, one, *args)
    except SpecError:
      self._all_heads(hook, params, args, wanted, axes)
      raise
    self.same(hook, found, wanted, axes)

  def _all_heads(self, hook, params, args, wanted, axes) -> None:
    try:
      found = self.call(hook, params, *args)
    except SpecError:
      return
    self.same(hook, found, wanted, axes)

  def scores(self, params: Params, one: Params, q_BLHK, k_BMHK, q_at, k_at) -> None:
    """Checks `score`, `values` and `full_scores`.

    params           parameters and constants of all heads
    one              those of one head
    q_BLHK, k_BMHK   rotated queries and keys
    q_at, k_at       their coordinates, with token data
    """
    s_HLM = jnp.einsum("LHK,MHK->HLM", q_BLHK[0], k_BMHK[0])
    tile_HLM = Tile(
      q_LK=jnp.moveaxis(q_BLHK[0], 1, 0),
      k_MK=jnp.moveaxis(k_BMHK[0], 1, 0),
      pos_L=q_at.pos_BL[0],
      pos_M=k_at.pos_BL[0],
      mask_LM=s_HLM[0] > 0,
      q_data={n: _heads_first(n, x) for n, x in q_at.data.items()},
      k_data={n: _heads_first(n, x) for n, x in k_at.data.items()},
      scale=0.3,
    )
    if self.uses("score"):
      tile = dataclasses.replace(
        tile_HLM,
        q_LK=tile_HLM.q_LK[0],
        k_MK=tile_HLM.k_MK[0],
        q_data={n: _one(n, x) for n, x in q_at.data.items()},
        k_data={n: _one(n, x) for n, x in k_at.data.items()},
      )
      self.one_head("score", params, one, (s_HLM[0], tile), (L, M), "s_LM of one head")
    if self.uses("values"):
      args = (s_HLM[0], q_at.pos_BL[0], k_at.pos_BL[0])
      K = q_BLHK.shape[-1] if not self.uses("transform_qk") else k_BMHK.shape[-1]
      self.one_head("values", params, one, args, (L, K), "o_LK of one head")
    if self.uses("full_scores"):
      found = self.call("full_scores", params, s_HLM, tile_HLM)
      self.same("full_scores", found, s_HLM.shape, "s_HLM")


CURE = {
  "mask": "it is called for one head, whose params['x_H'] is one number",
  "bias": "it is called for one head, whose params['x_H'] is one number",
  "score": "it is called for one head, whose params['x_H'] is one number",
  "values": "it is called for one head, whose params['x_H'] is one number",
}


def _heads_first(name: str, x_B: jax.Array) -> jax.Array:
  axes = axes_of(name)
  return jnp.moveaxis(x_B[0], axes.index("H") - 1, 0) if "H" in axes else x_B[0]


def _one(name: str, x_B: jax.Array) -> jax.Array:
  return _heads_first(name, x_B)[0] if "H" in axes_of(name) else x_B[0]


def _broadcasts(shape: tuple[int, ...], into: tuple[int, ...]) -> bool:
  pairs = zip(reversed(shape), reversed(into), strict=False)
  return len(shape) <= len(into) and all(n in (1, size) for n, size in pairs)
