"""Attention in one kernel for TPUs, forward and backward.

Dao et al., 2022, https://arxiv.org/abs/2205.14135, written in Pallas. The hooks of the
encoding compute the score of a tile: learned biases of any kind get exact gradients,
and no array of [L, M] is ever made. Without a TPU the same program is interpreted,
which is slow and for tests.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from transformer_jax.attention.cores.base import Core, cores
from transformer_jax.attention.cores.pallas import call, layout, loads, tpu_kernels
from transformer_jax.attention.cores.pallas.tpu_grid import TileGrid, is_large
from transformer_jax.attention.cores.per_device import on_each_device
from transformer_jax.attention.variants.bound_variant import PLAIN, BoundVariant
from transformer_jax.devices import platform

LEAST = 16, 128  # rows and columns of a tile that a TPU takes
BLOCKS = 512, 256, 128  # queries and keys in a tile
MOST = BLOCKS[0] ** 2  # numbers of an array in a tile
# Bytes of fast memory for a kernel that adds a bias, for one that does more, and with
# large tables. Chips have 128 MiB, v5p 64; the rest is XLA's, for arrays around.
FAST, FAST_FOR_MORE, FAST_FOR_TABLES = (n * 2**20 for n in (16, 48, 96))
shape, f32 = jax.ShapeDtypeStruct, jnp.float32


@cores.register("pallas_tpu")
@dataclasses.dataclass(frozen=True)
class PallasTPU(Core):
  """Visits tiles in fast memory and skips fully masked ones.

  block       queries and keys in a tile, a power of two; on a TPU at least 128. None:
              512, and less where an encoding computes more than fast memory holds
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
    blocks = (self.block,) if self.block else BLOCKS
    backend = TPUBackend(off, context.variant)
    return call.call(backend, blocks, least, q_BLHK, k_BMGK, v_BMGE, context)

  def refusal(self, encoding, variant=PLAIN.variant, dropout=False):
    return call.refusal("pallas_tpu", encoding, variant, dropout)


@dataclasses.dataclass(frozen=True, eq=False)
class TPUBackend:
  """TPU kernels over the grid of tiles: for outputs, and for gradients of each side.

  interpret   run the kernels as ordinary JAX
  variant     the bound variant
  """

  interpret: bool
  variant: BoundVariant
  room, form = True, layout.TOKENS_LAST

  def fits(self, program) -> bool:
    """Returns whether the arrays that a program makes in a tile fit fast memory."""
    return program.largest <= MOST

  def forward(self, work, tables, queries, keys, where):
    """Returns outputs, in the type of the values, and lse_BH1L.

    work      static description of the call
    tables    arrays that depend on parameters alone, by head
    queries   arrays of queries
    keys      arrays of keys and values
    where     block mask and `shift_B`
    """
    grid, size = TileGrid(work, where, by_keys=False), work.tile
    outs = {
      "out": shape(work.form.shape(work.B, work.H, work.L, size.E), keys["v"].dtype),
      "lse": shape((work.B, work.H, 1, work.L), f32),
    }
    sums = [shape((size.L, n), f32) for n in (1, 1, size.E)]
    args = tables, queries, keys
    outs = self._run(tpu_kernels.outputs, grid, args, outs, sums, products=2)
    return outs["out"], outs["lse"]

  def backward(self, work, tables, queries, keys, where):
    """Returns gradients of tables, queries and keys, as trees like theirs.

    work      static description of the call
    tables    arrays that depend on parameters alone, by head
    queries   arrays of queries, with out, d_out and lse
    keys      arrays of keys and values
    where     block mask and `shift_B`

    Those of queries have `delta`, the row sums of dO * O, too.
    """
    by_query = self._of_queries(work, (tables, queries, keys), where)
    queries = {n: x for n, x in queries.items() if n != "out"}
    queries["delta"] = by_query["delta"]
    by_key = self._of_keys(work, (tables, queries, keys), where)
    d_queries = by_query | {"data": _filled(queries, by_query)}
    d_keys = {"k": by_key["k"], "v": by_key["v"], "data": _filled(keys, by_key)}
    return by_key["tables"], d_queries, d_keys

  def _of_queries(self, work, args, where):
    """Returns gradients of queries and of their data, and `delta`."""
    _, queries, _ = args
    grid, size, row = TileGrid(work, where, by_keys=False), work.tile, queries["lse"]
    outs = {
      "q": shape(queries["q"].shape, queries["q"].dtype),
      "delta": shape(row.shape, f32),
      "data": _data_sums(work, queries),
    }
    sums = {"q": shape((size.L, size.K), f32)}
    return self._run(tpu_kernels.query_gradients, grid, args, outs, sums, products=3)

  def _of_keys(self, work, args, where):
    """Returns gradients of keys, values, data of keys, and tables."""
    tables, _, keys = args
    grid, size = TileGrid(work, where, by_keys=True), work.tile
    widths = {"k": size.K, "v": size.E}
    sizes = {n: work.form.shape(work.B, work.G, work.M, w) for n, w in widths.items()}
    outs: dict[str, Any] = {n: shape(sizes[n], keys[n].dtype) for n in widths}
    outs["data"] = _data_sums(work, keys)
    trained = loads.trained(work, tables)
    outs["tables"] = jax.tree.map(lambda x: shape(x.shape, f32), trained)
    sums = {name: shape((size.M, w), f32) for name, w in widths.items()}
    return self._run(tpu_kernels.key_gradients, grid, args, outs, sums, products=4)

  def _step(self, kernel, grid):
    """Returns the body of a kernel: one step of the grid, at one tile.

    kernel    function of a GridStep, one of `tpu_kernels`
    grid      the grid of tiles
    """

    def body(fetch, shift, tables, queries, keys, outs, sums, columns, room):
      ids = tuple(pl.program_id(axis) for axis in range(4))
      start, visit, end = kernel(
        tpu_kernels.GridStep(
          work=grid.work,
          variant=self.variant,
          tables=tables,
          queries=queries,
          keys=keys,
          outs=outs,
          sums=sums,
          columns=columns,
          room=room,
          base=grid.base(ids, shift),
          member=grid.of_group(ids),
        )
      )
      first = ids[3] == 0
      pl.when(first)(start)
      if grid.by_keys:
        pl.when(grid.starts_head(ids))(lambda: tpu_kernels.clear(outs["data"]))
        whole = first & (ids[1] == 0) & (ids[2] == 0)
        pl.when(whole)(lambda: tpu_kernels.clear(outs["tables"]))
      pl.when(grid.needed(ids, fetch))(visit)
      pl.when(ids[3] == grid.sizes[3] - 1)(end)

    return body

  def _fast(self, work):
    """Returns the bytes of fast memory that a kernel may take."""
    if any(is_large(x) for x in jax.tree.leaves(work.tables)):
      return FAST_FOR_TABLES
    return FAST_FOR_MORE if work.program.more else FAST

  def _run(self, kernel, grid, args, outs, sums, products):
    """Returns the outputs of a kernel.

    kernel     function of a GridStep, one of `tpu_kernels`
    grid       the grid of tiles
    args       tables, queries and keys
    outs       shapes of the outputs
    sums       shapes of memory that a row or column of tiles shares
    products   matrix products in a tile
    """
    work, (tables, queries, keys) = grid.work, args
    room = [shape((work.tile.L, work.tile.M), f32)] * work.program.room
    columns = tpu_kernels.columns_of(queries, work.tile.L)
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
      scratch_shapes=jax.tree.map(_memory, (sums, columns, room)),
    )
    run = pl.pallas_call(
      self._step(kernel, grid),
      outs,
      grid_spec=spec,
      interpret=self.interpret,
      compiler_params=pltpu.CompilerParams(
        dimension_semantics=grid.semantics, vmem_limit_bytes=self._fast(work)
      ),
      cost_estimate=layout.cost(work, products, args, outs, again),
    )
    return run(grid.fetch, grid.shift, *args)


def _memory(x):
  return pltpu.VMEM(x.shape, x.dtype)


def _data_sums(work, side):
  """Returns shapes of the gradients of token data, for each head."""
  data = {n: side["data"][n] for n in loads.moving(side["data"])}
  return {n: shape((work.B, work.H, *x.shape[2:]), f32) for n, x in data.items()}


def _filled(side, grads):
  """Returns gradients of token data; None for arrays without a gradient."""
  return {n: grads["data"].get(n) for n in side["data"]}
