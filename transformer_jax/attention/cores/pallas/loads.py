"""Loads of a tile from references, and sums of gradients into references."""

from typing import Any

import jax
import jax.numpy as jnp

from transformer_jax.attention.cores.pallas import layout
from transformer_jax.attention.cores.pallas.score_program import (
  EXTENDED,
  Grads,
  Residuals,
  dot,
)
from transformer_jax.attention.cores.pallas.score_terms import Given

Tree = Any


class LoadedTile:
  """One tile of one head, loaded from references to its queries and keys.

  work            static description of the call
  variant         the bound variant, whose mask is used
  queries, keys   references to the arrays of the tile
  base            index of the first query minus that of the first key, in tokens
  room            memory of a tile, for terms that need it
  """

  def __init__(self, work, variant, queries: Tree, keys: Tree, base, room=None):
    self.work, self.program = work, work.program
    self.queries, self.keys = queries, keys
    q_at, q_data = _tokens(queries, work.own_data[0], column=True)
    k_at, k_data = _tokens(keys, work.own_data[1], column=False)
    self.q_LK, self.k_MK = self._vectors(queries["q"]), self._vectors(keys["k"])
    self.given = Given(
      q_LK=self.q_LK.astype(jnp.float32),
      k_MK=self.k_MK.astype(jnp.float32),
      pos_L=q_at.pos_BL[0],
      pos_M=k_at.pos_BL[0],
      base=base,
      mask_LM=variant.mask(q_at, k_at)[0],
      q_data=q_data,
      k_data=k_data,
      strip=lambda rows: queries["pos"][rows, 0],
      room_LM=room,
    )
    self.run_on = self._runs_on() if self.program.bands else None

  def scores(self, tables: Tree) -> tuple[jax.Array, jax.Array]:
    """Returns the scores s_LM and mask_LM."""
    dot_LM = dot(self.q_LK, self.k_MK, 1, 1)
    given = self.program.masked(tables, self.given)
    s_LM = self.program.scores(tables, given, dot_LM, self.run_on)[-1]
    return s_LM, given.mask_LM

  def mixture(self, tables: Tree, w_LM: jax.Array) -> jax.Array:
    v_ME = self._vectors(self.keys["v"])
    return self.program.mixture(tables, self.given, w_LM, v_ME, self.run_on)

  def backward(self, tables: Tree, sums: Any = None) -> Grads:
    """Returns gradients of the tile's inputs; `sums` as in `ScoreProgram.backward`."""
    lse_L1, delta_L1 = (self.queries[name][...] for name in ("lse", "delta"))
    residuals = Residuals(
      q_LK=self.q_LK,
      k_MK=self.k_MK,
      v_ME=self._vectors(self.keys["v"]),
      d_out_LE=self._vectors(self.queries["d_out"]),
      lse_L1=lse_L1,
      delta_L1=delta_L1,
    )
    return self.program.backward(tables, self.given, residuals, self.run_on, sums)

  def _vectors(self, ref):
    return self.work.form.tile(ref[...])

  def _runs_on(self):
    """Returns whether positions are consecutive, where not masked, and in reach."""
    given, (L, M) = self.given, (self.work.tile.L, self.work.tile.M)
    reach = self.work.tile.reach
    near = (given.base + L <= reach) & (given.base - M >= -reach)
    place_LM = jax.lax.broadcasted_iota(jnp.int32, (L, M), 0) + given.base
    place_LM -= jax.lax.broadcasted_iota(jnp.int32, (L, M), 1)
    off_LM = given.pos_L[:, None] - given.pos_M[None, :] != place_LM
    return near & jnp.logical_not(jnp.any(given.mask_LM & off_LM))


def _tokens(refs, own_data, column):
  ints, pos = refs["ints"], refs["pos"]
  columns = [ints[:, n] if column else ints[n] for n in range(3)]
  data = {}
  for name, like in own_data.items():
    if name not in refs["data"]:
      data[name] = jnp.zeros(like.shape, like.dtype)
    elif layout.narrow(name):
      data[name] = refs["data"][name][:, 0] if column else refs["data"][name][0]
    else:
      data[name] = refs["data"][name][...].reshape(like.shape)
  return layout.coords_of(columns, pos[:, 0] if column else pos[0]), data


def read_tables(work, refs: Tree) -> Tree:
  """Returns tables of one head, in the shapes of the hooks' results.

  The extended ones stay references: a tile reads a part of them.
  """

  def read(like, ref):
    if not like.shape:
      return ref[0, 0]
    return ref[0] if len(like.shape) == 1 else ref[...]

  shapes = {n: x for n, x in work.tables.items() if n != EXTENDED}
  own = {n: jax.tree.map(read, x, refs[n]) for n, x in shapes.items()}
  return own | {EXTENDED: refs[EXTENDED]}


def trained(work, tables: Tree) -> Tree:
  """Returns the tables with gradients from the tiles; None in place of others."""
  without = ("sink_logit", "mask")

  def floating(x):
    return x if jnp.issubdtype(x.dtype, jnp.floating) else None

  return {n: jax.tree.map(floating, x) for n, x in tables.items() if n not in without}


def add_tables(outs: Tree, d_tables: Tree) -> None:
  """Adds gradients of tables to references, leaf by leaf; the extended ones have it."""

  def add(out, d):
    out[...] += jnp.reshape(d, out.shape) if d.ndim else jnp.full(out.shape, d)

  jax.tree.map(add, {n: x for n, x in outs.items() if n != EXTENDED}, d_tables)


def moving(data: Tree) -> list[str]:
  """Returns names of token data that have a gradient."""
  return [n for n, x in data.items() if jnp.issubdtype(x.dtype, jnp.floating)]


def add_data(outs: dict, grads: dict, column: bool) -> None:
  """Adds gradients of token data to references."""
  for name, out in outs.items():
    d = grads[name]
    if layout.narrow(name):
      d = d[:, None] if column else d[None, :]
    out[...] += d.reshape(out.shape)
