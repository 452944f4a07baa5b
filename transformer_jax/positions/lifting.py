"""Hooks of one head of one sequence, mapped over heads and batch."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from transformer_jax.axes import axes_of
from transformer_jax.positions.base import Params, Tile
from transformer_jax.positions.coords import Coords


def head_axes(params: Params) -> dict[str, int | None]:
  """Maps each parameter to 0 if it has a slice for each head, else to None."""
  return {n: 0 if axes_of(n).startswith("H") else None for n in params}


def score_by_head(
  score: Callable[[Params, jax.Array, Tile], jax.Array],
  params: Params,
  s_BHLM: jax.Array,
  q_BLHK: jax.Array,
  k_BMHK: jax.Array,
  q_at: Coords,
  k_at: Coords,
  mask_BLM: jax.Array,
  scale: float | jax.Array,
) -> jax.Array:
  """Returns s_BHLM after a `score` hook, mapped over heads and batch.

  score    (params, s_LM, tile) -> s_LM, of one head of one sequence
  params   of the hook's owner; the other arguments are those of `Bound.score`
  """
  if mask_BLM.ndim == 4:
    mask_BLM = jnp.broadcast_to(mask_BLM, s_BHLM.shape)
  tokens = {
    "q_LK": q_BLHK, "k_MK": k_BMHK, "pos_L": q_at.pos_BL, "pos_M": k_at.pos_BL,
    "mask_LM": mask_BLM, "q_data": q_at.data, "k_data": k_at.data,
  }  # fmt: skip
  # The axis of heads in each array of a sequence.
  token_axes = {
    "q_LK": 1, "k_MK": 1, "pos_L": None, "pos_M": None,
    "mask_LM": 0 if mask_BLM.ndim == 4 else None,
    "q_data": {name: _head_axis(name) for name in q_at.data},
    "k_data": {name: _head_axis(name) for name in k_at.data},
  }  # fmt: skip

  def one(params, scale, s_LM, tokens):
    return score(params, s_LM, Tile(**tokens, scale=scale))

  axes = head_axes(params), 0 if jnp.ndim(scale) else None, 0, token_axes
  return over_batch(jax.vmap(one, axes), (params, scale), (s_BHLM, tokens))


def by_head(scale: float | jax.Array) -> float | jax.Array:
  """Returns scale_H11 of scale_H, to multiply s_HLM with; a number as it is."""
  if isinstance(scale, int | float) or scale.ndim == 0:
    return scale
  return scale[:, None, None]


def _head_axis(name: str) -> int | None:
  """Returns the axis of heads in token data of one sequence, or None."""
  axes = axes_of(name).removeprefix("B")
  return axes.index("H") if "H" in axes else None


def heads_first(data: Params) -> Params:
  """Returns token data with the axis of heads, if any, after that of the batch."""
  return {
    name: jnp.moveaxis(x, axes_of(name).index("H"), 1) if "H" in axes_of(name) else x
    for name, x in data.items()
  }


def over_heads(function: Any, params: Params, head_axes: dict[str, int | None]) -> Any:
  """Maps a function of (params, ...) over heads; without any, the head axis is 1."""

  def mapped(*args: jax.Array) -> jax.Array:
    if not any(axis == 0 for axis in head_axes.values()):
      return function(params, *args)[None]
    axes = (head_axes, *(None for _ in args))
    return jax.vmap(function, axes)(params, *args)

  return mapped


def over_batch(function: Any, whole: tuple, batched: tuple) -> jax.Array:
  """Maps over the batch; arrays whose batch axis is 1 are shared, not repeated."""
  sizes = {x.shape[0] for x in jax.tree.leaves(batched) if jnp.ndim(x)}
  B = max(sizes)
  if B == 1:  # `vmap` would batch values that depend on positions alone
    batched = jax.tree.map(lambda x: x[0] if jnp.ndim(x) else x, batched)
    return function(*whole, *batched)[None]

  def axis(x):
    return 0 if jnp.ndim(x) and x.shape[0] == B else None

  def squeeze(x):
    return x[0] if jnp.ndim(x) and axis(x) is None else x

  in_axes = (*(None for _ in whole), *jax.tree.map(axis, batched))
  return jax.vmap(function, in_axes)(*whole, *jax.tree.map(squeeze, batched))
