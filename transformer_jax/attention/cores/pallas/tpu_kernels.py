"""Bodies of the TPU kernels: outputs, gradients of queries, gradients of keys.

Each is a function of a `GridStep`, and returns (start, visit, end): what to do before a
row or column of tiles, at each of its tiles, and after it.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from transformer_jax.attention.cores.pallas import layout, loads
from transformer_jax.attention.cores.pallas.score_program import (
  EXTENDED,
  finish,
  grow,
)
from transformer_jax.attention.variants.bound_variant import MASKED, BoundVariant

Tree = Any


@dataclasses.dataclass(frozen=True, eq=False)
class GridStep:
  """References of one step of a grid.

  work      static description of the call
  variant   the bound variant
  tables    of the head
  queries   arrays of queries; numbers of tokens are in rows
  keys      arrays of keys and values
  outs      outputs
  sums      float32 sums that a row or column of tiles shares
  columns   memory for the numbers of queries as columns
  room      memory of a tile, for terms that need it
  base      index of the first query minus that of the first key, in tokens
  member    number of the head of queries among those of its head of keys
  """

  work: Any
  variant: BoundVariant
  tables: Tree
  queries: Tree
  keys: Tree
  outs: Tree
  sums: Tree
  columns: Tree
  room: Tree
  base: Any
  member: Any

  def values(self) -> Tree:
    return loads.read_tables(self.work, self.tables)

  def turn(self) -> None:
    """Writes the numbers of queries to columns: a tile has queries as rows."""
    queries = self.queries
    data = {n: queries["data"][n] for n in self.columns["data"]}
    rows = {n: queries[n] for n in self.columns if n in queries} | {"data": data}
    columns = {n: x for n, x in self.columns.items() if n in rows}
    jax.tree.map(lambda column, row: _write(column, row[...].T), columns, rows)

  def vectors(self, name: str) -> jax.Array:
    """Returns the vectors of queries of a name, [tokens, width]."""
    return self.work.form.tile(self.queries[name][...])

  def store(self, name: str, x: jax.Array) -> None:
    """Writes vectors [tokens, width] to the output of a name, in its type."""
    self.outs[name][...] = self.work.form.tile(x.astype(self.outs[name].dtype))

  def tile(self) -> loads.LoadedTile:
    data = self.queries["data"] | self.columns["data"]
    queries = self.queries | self.columns | {"data": data}
    args = queries, self.keys, self.base, *self.room
    return loads.LoadedTile(self.work, self.variant, *args)


def outputs(step: GridStep):
  """Returns (start, visit, end) of outputs and log-sum-exps: a running softmax."""
  top, total, mixed = step.sums

  def start():
    step.turn()
    sink_logit = step.work.sink_logit
    first = step.values()["sink_logit"] if sink_logit else MASKED
    top[...] = jnp.full(top.shape, first)
    total[...] = jnp.full(total.shape, 1.0 if sink_logit else 0.0)
    mixed[...] = jnp.zeros(mixed.shape, mixed.dtype)

  def visit():
    loaded, values = step.tile(), step.values()
    mixture = functools.partial(loaded.mixture, values)
    s_LM, mask_LM = loaded.scores(values)
    before = top[...], total[...], mixed[...]
    top[...], total[...], mixed[...] = grow(before, s_LM, mask_LM, mixture)

  def end():
    out_LE, lse_L1 = finish((top[...], total[...], mixed[...]))
    step.store("out", out_LE)
    step.outs["lse"][...] = lse_L1.T

  return start, visit, end


def query_gradients(step: GridStep):
  """Returns (start, visit, end) of gradients of queries, and of `delta`."""
  outs = step.outs

  def start():
    step.turn()
    product_LE = (step.vectors(name).astype(jnp.float32) for name in ("out", "d_out"))
    delta_L1 = jnp.sum(jnp.multiply(*product_LE), axis=1, keepdims=True)
    step.columns["delta"][...] = delta_L1
    outs["delta"][...] = delta_L1.T
    clear((step.sums, outs["data"]))

  def visit():
    d = step.tile().backward(step.values())
    step.sums["q"][...] += d.q_LK
    loads.add_data(outs["data"], d.q_data, column=False)

  def end():
    step.store("q", step.sums["q"][...])

  return start, visit, end


def key_gradients(step: GridStep):
  """Returns (start, visit, end) of gradients of keys, values and tables."""
  outs, sums = step.outs, step.sums

  def visit():
    step.turn()
    of_head = jax.tree.map(lambda out: out.at[step.member], outs["tables"])
    d = step.tile().backward(step.values(), of_head[EXTENDED])
    sums["k"][...] += d.k_MK
    sums["v"][...] += d.v_ME
    loads.add_data(outs["data"], d.k_data, column=False)
    loads.add_tables(of_head, d.tables)

  def end():
    for name, total in sums.items():
      step.store(name, total[...])

  return lambda: clear(sums), visit, end


def columns_of(queries: Tree, size: int) -> Tree:
  """Returns shapes of the numbers of a block of queries as columns.

  queries   arrays of queries
  size      queries in a block
  """

  def column(x):
    return jax.ShapeDtypeStruct((size, x.shape[2]), x.dtype)

  data = {n: column(x) for n, x in queries["data"].items() if layout.is_row(n)}
  own = {n: column(x) for n, x in queries.items() if n != "data" and layout.is_row(n)}
  if "out" in queries:  # delta is computed from it
    own["delta"] = jax.ShapeDtypeStruct((size, 1), jnp.float32)
  return own | {"data": data}


def clear(refs: Tree) -> None:
  """Writes zeros."""
  for ref in jax.tree.leaves(refs):
    ref[...] = jnp.zeros(ref.shape, ref.dtype)


def _write(ref, value):
  ref[...] = value
