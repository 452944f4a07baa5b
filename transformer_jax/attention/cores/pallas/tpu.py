"""Attention in one kernel for TPUs, forward and backward.

Dao et al., 2022, https://arxiv.org/abs/2205.14135, written in Pallas. The hooks of the
encoding compute the score of a tile: learned biases of any kind get exact gradients,
and no array of [L, M] is ever made. Without a TPU the same program is interpreted,
which is slow and for tests.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from transformer_jax.attention.cores.base import Core, cores
from transformer_jax.attention.cores.pallas import call, layout, loads
from transformer_jax.attention.cores.pallas.score_program import finish, grow
from transformer_jax.attention.cores.pallas.tpu_grid import TileGrid
from transformer_jax.attention.cores.per_device import on_each_device
from transformer_jax.attention.variants.bound_variant import MASKED, PLAIN, BoundVariant
from transformer_jax.devices import platform

LEAST = 16, 128  # rows and columns of a tile that a TPU takes
FAST = 48 * 2**20  # bytes of fast memory for a tile; v5p has 64 MiB, others have more
shape = jax.ShapeDtypeStruct


@cores.register("pallas_tpu")
@dataclasses.dataclass(frozen=True)
class PallasTPU(Core):
  """Visits tiles in fast memory and skips fully masked ones.

  block       queries and keys in a tile, a power of two; on a TPU at least 128. None:
              128 where an encoding does more than add a bias, else 256
  interpret   run the kernel as ordinary JAX; None: wherever there is no TPU

  >>> import transformer_jax as tj
  >>> tpu = tj.cores.build("pallas_tpu")
  >>> print(tpu.refusal(tj.positions.build("shaw")))
  None
  >>> print(tpu.refusal(tj.positions.build("cope")).partition(";")[0])
  cope looks at whole rows of scores, and pallas_tpu never holds one
  """

  block: int | None = None
  interpret: bool | None = None

  @on_each_device
  def attend(self, q_BLHK, k_BMGK, v_BMGE, context):
    off = platform() != "tpu" if self.interpret is None else self.interpret
    least = (1, 1) if off else LEAST
    more = any(map(context.position.encoding.overrides, ("score", "values")))
    block = self.block or (128 if more else 256)
    backend = TPUBackend(off, context.variant)
    return call.call(backend, block, least, q_BLHK, k_BMGK, v_BMGE, context)

  def refusal(self, encoding, variant=PLAIN.variant, dropout=False):
    return call.refusal("pallas_tpu", encoding, variant, dropout)


@dataclasses.dataclass(frozen=True, eq=False)
class TPUBackend:
  """TPU kernels over the grid of tiles: for outputs, and for gradients of each side."""

  interpret: bool
  variant: BoundVariant
  room = True

  def forward(self, work, tables, queries, keys, where):
    """Returns out_BHLE, in the type of the values, and lse_BHL1.

    work      static description of the call
    tables    arrays that depend on parameters alone, by head
    queries   arrays of queries
    keys      arrays of keys and values
    where     block mask and `shift_B`
    """
    grid, size = TileGrid(work, where, by_keys=False), work.tile
    kernel = functools.partial(_running_softmax, work.sink_logit)
    row = (work.B, work.H, work.L)
    outs = {
      "out": shape((*row, size.E), keys["v"].dtype),
      "lse": shape((*row, 1), jnp.float32),
    }
    scratch = [pltpu.VMEM((size.L, n), jnp.float32) for n in (1, 1, size.E)]
    outs = self._run(kernel, grid, (tables, queries, keys), outs, scratch, products=2)
    return outs["out"], outs["lse"]

  def backward(self, work, tables, queries, keys, where):
    """Returns gradients of tables, queries and keys, as trees like theirs.

    work      static description of the call
    tables    arrays that depend on parameters alone, by head
    queries   arrays of queries, with d_out, lse and delta
    keys      arrays of keys and values
    where     block mask and `shift_B`
    """
    args = tables, queries, keys
    by_query = self._sweep(work, args, where, by_keys=False)
    by_key = self._sweep(work, args, where, by_keys=True)
    d_queries = {"q": by_query["q"], "data": _filled(queries, by_query)}
    d_keys = {"k": by_key["k"], "v": by_key["v"], "data": _filled(keys, by_key)}
    leaves, treedef = jax.tree.flatten(loads.trained(work, tables))
    assert len(leaves) == len(by_key["tables"])
    d_tables = jax.tree.unflatten(treedef, by_key["tables"])
    return d_tables, d_queries, d_keys

  def _sweep(self, work, args, where, by_keys):
    tables, queries, keys = args
    grid, f32 = TileGrid(work, where, by_keys), jnp.float32
    side = keys if by_keys else queries

    def heads(x):
      return shape((work.B, work.H, *x.shape[2:]), f32)

    outs: dict[str, Any] = {}
    outs["data"] = {n: heads(side["data"][n]) for n in loads.moving(side["data"])}
    for name in ("k", "v") if by_keys else ("q",):
      outs[name] = heads(side[name])
    trained = jax.tree.leaves(loads.trained(work, tables)) if by_keys else []
    outs["tables"] = [shape(x.shape, f32) for x in trained]

    def kernel(tile, values, outs, state):
      arrays = {name: x for name, x in outs.items() if name != "tables"}

      def visit():
        d = tile().backward(values)
        if not by_keys:
          outs["q"][...] += d.q_LK
          loads.add_data(outs["data"], d.q_data, column=True)
          return
        outs["k"][...] += d.k_MK
        outs["v"][...] += d.v_ME
        loads.add_data(outs["data"], d.k_data, column=False)
        loads.add_tables(outs["tables"], d.tables)

      return lambda: _clear(arrays), visit, lambda: None

    return self._run(kernel, grid, args, outs, [], products=4 if by_keys else 3)

  def _step(self, kernel, grid, scratch):
    """Returns the body of a kernel: one step of the grid, at one tile.

    kernel    (tile, values, outs, state) -> (start, visit, end)
    grid      the grid of tiles
    scratch   number of arrays of memory that a row of tiles shares
    """
    work = grid.work

    def body(fetch, shift, tables, queries, keys, outs, *memory):
      state, room = memory[:scratch], memory[scratch:]
      values = loads.read_tables(work, tables)
      ids = tuple(pl.program_id(axis) for axis in range(4))
      base = grid.base(ids, shift)

      def tile():
        return loads.LoadedTile(work, self.variant, queries, keys, base, *room)

      start, visit, end = kernel(tile, values, outs, state)
      first = ids[3] == 0
      pl.when(first)(start)
      pl.when(first & (ids[1] == 0) & (ids[2] == 0))(lambda: _clear(outs.get("tables")))
      pl.when(grid.needed(ids, fetch))(visit)
      pl.when(ids[3] == grid.sizes[3] - 1)(end)

    return body

  def _run(self, kernel, grid, args, outs, scratch, products):
    """Returns the outputs of a kernel.

    kernel     (tile, values, outs, state) -> (start, visit, end)
    grid       the grid of tiles
    args       tables, queries and keys
    outs       shapes of the outputs
    scratch    memory that a row of tiles shares
    products   matrix products in a tile
    """
    work, (tables, queries, keys) = grid.work, args
    room = [pltpu.VMEM((work.tile.L, work.tile.M), jnp.float32)] * work.program.room
    again = ((queries, keys)[not grid.by_keys], grid.sizes[2])
    spec = pltpu.PrefetchScalarGridSpec(
      num_scalar_prefetch=2,
      grid=grid.sizes,
      in_specs=[
        jax.tree.map(grid.table, tables),
        layout.by_name(grid.queries, queries),
        layout.by_name(grid.keys, keys),
      ],
      out_specs=grid.outputs(outs),
      scratch_shapes=[*scratch, *room],
    )
    run = pl.pallas_call(
      self._step(kernel, grid, len(scratch)),
      outs,
      grid_spec=spec,
      interpret=self.interpret,
      compiler_params=pltpu.CompilerParams(
        dimension_semantics=grid.semantics, vmem_limit_bytes=FAST
      ),
      cost_estimate=layout.cost(work, products, args, outs, again),
    )
    return run(grid.fetch, grid.shift, *args)


def _running_softmax(sink_logit, tile, values, outs, state):
  """Returns (start, visit, end), the kernel of the forward pass, for a row of tiles.

  sink_logit   whether the softmax has a sink
  tile         function that loads the tile of a step
  values       tables of the head
  outs         references to the outputs and to log-sum-exps
  state        references to the running maximum, sum and mixture
  """
  top, total, sums = state

  def start():
    top[...] = jnp.full(top.shape, values["sink_logit"] if sink_logit else MASKED)
    total[...] = jnp.full(total.shape, 1.0 if sink_logit else 0.0)
    sums[...] = jnp.zeros(sums.shape, sums.dtype)

  def visit():
    loaded = tile()
    mixture = functools.partial(loaded.mixture, values)
    s_LM, mask_LM = loaded.scores(values)
    before = top[...], total[...], sums[...]
    top[...], total[...], sums[...] = grow(before, s_LM, mask_LM, mixture)

  def end():
    out_LE, lse_L1 = finish((top[...], total[...], sums[...]))
    outs["out"][...] = out_LE.astype(outs["out"].dtype)
    outs["lse"][...] = lse_L1

  return start, visit, end


def _filled(side, grads):
  """Returns gradients of token data; None for arrays without a gradient."""
  return {n: grads["data"].get(n) for n in side["data"]}


def _clear(refs):
  for ref in jax.tree.leaves(refs):
    ref[...] = jnp.zeros(ref.shape, ref.dtype)
