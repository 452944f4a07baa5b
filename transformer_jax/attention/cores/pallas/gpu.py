"""Attention in one kernel for NVIDIA GPUs, through Triton.

Dao et al., 2022, https://arxiv.org/abs/2205.14135, written in Pallas with the tiles of
`pallas_tpu`. It has been compiled for an H100 and interpreted on a CPU, where it equals
`dense`; it has not run on a GPU. `auto` compares it with `dense` before it is used.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from transformer_jax.attention.cores.base import Core, cores
from transformer_jax.attention.cores.pallas import call, layout, loads
from transformer_jax.attention.cores.pallas.gpu_blocks import (
  BlockSpecs,
  cut,
  padded_to_power_of_two,
)
from transformer_jax.attention.cores.pallas.score_program import finish, grow
from transformer_jax.attention.cores.per_device import on_each_device
from transformer_jax.attention.variants.bound_variant import MASKED, PLAIN, BoundVariant
from transformer_jax.devices import platform

LEAST = 16, 16  # rows and columns of a tile that tensor cores take
shape = jax.ShapeDtypeStruct


@cores.register("pallas_gpu")
@dataclasses.dataclass(frozen=True)
class PallasGPU(Core):
  """Visits tiles on a GPU and skips fully masked ones.

  block       queries and keys in a tile, a power of two from 16 on. None: 16 where a
              bias needs a third axis in each tile, which must fit registers, else 64
  interpret   run the kernel as ordinary JAX; None: wherever there is no GPU

  >>> import transformer_jax as tj
  >>> gpu = tj.cores.build("pallas_gpu")
  >>> print(gpu.refusal(tj.positions.build("alibi")))
  None
  >>> print(gpu.refusal(tj.positions.build("shaw")).partition(",")[0])
  shaw changes scores by more than a bias of positions
  """

  block: int | None = None
  interpret: bool | None = None

  @on_each_device
  def attend(self, q_BLHK, k_BMGK, v_BMGE, context):
    off = self._interpreted()
    least = (1, 1) if off else LEAST
    block = self.block or (16 if call.deep(context.position.encoding) else 64)
    backend = GPUBackend(off, context.variant)
    return call.call(backend, block, least, q_BLHK, k_BMGK, v_BMGE, context)

  def _interpreted(self):
    return platform() != "gpu" if self.interpret is None else self.interpret

  def misfit(self, q_BLHK, k_BMGK, v_BMGE):
    widths = q_BLHK.shape[-1], v_BMGE.shape[-1]
    if self._interpreted() or not any(n & (n - 1) or n < 16 for n in widths):
      return None
    return (
      f"pallas_gpu needs heads whose width is a power of two from 16 on, not {widths};"
      " change model.head_width or use model.core=blockwise"
    )

  def refusal(self, encoding, variant=PLAIN.variant, dropout=False):
    reason = call.refusal("pallas_gpu", encoding, variant, dropout)
    if reason is None and (encoding.overrides("score") or encoding.overrides("values")):
      return (
        f"{encoding.name} changes scores by more than a bias of positions, which is all"
        " that pallas_gpu adds; use model.core=blockwise or dense"
      )
    return reason


@dataclasses.dataclass(frozen=True, eq=False)
class GPUBackend:
  """GPU kernels: a program has one block of queries, or keys, and visits the others."""

  interpret: bool
  variant: BoundVariant
  room = False

  def forward(self, work, tables, queries, keys, where):
    """Returns out_BHLE, in the type of the values, and lse_BHL1.

    work      static description of the call
    tables    arrays that depend on parameters alone, by head
    queries   arrays of queries
    keys      arrays of keys and values
    where     block mask and `shift_B`
    """
    size = work.tile
    row = (work.B, work.H, work.L)
    outs = {
      "out": shape((*row, size.E), keys["v"].dtype),
      "lse": shape((*row, 1), jnp.float32),
    }

    def start(values):
      first = values["sink_logit"] if work.sink_logit else MASKED
      top_L1 = jnp.full((size.L, 1), first, jnp.float32)
      sum_L1 = jnp.full((size.L, 1), float(work.sink_logit), jnp.float32)
      return top_L1, sum_L1, jnp.full((size.L, size.E), 0.0, jnp.float32)

    def visit(tile, values, state):
      mixture = functools.partial(tile.mixture, values)
      s_LM, mask_LM = tile.scores(values)
      return grow(state, s_LM, mask_LM, mixture)

    def end(state, outs):
      out_LE, lse_L1 = finish(state)
      outs["out"][...] = out_LE.astype(outs["out"].dtype)
      outs["lse"][...] = lse_L1

    args = tables, queries, keys
    outs = self._run(work, args, where, False, outs, (start, visit, end), products=2)
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
    d_q = self._sweep(work, args, where, by_keys=False)["side"]["q"]
    by_key = self._sweep(work, args, where, by_keys=True)
    trained = loads.trained(work, tables)
    leaves, treedef = jax.tree.flatten(trained)
    # One sum for each block of keys in each row of the batch.
    sums = [jnp.sum(d, axis=(0, 2)) for d in by_key["tables"]]
    pairs = zip(sums, leaves, strict=True)
    d_tables = jax.tree.unflatten(treedef, [d[..., : x.shape[-1]] for d, x in pairs])
    d_keys = {"k": by_key["side"]["k"], "v": by_key["side"]["v"], "data": {}}
    return d_tables, {"q": d_q, "data": {}}, d_keys

  def _sweep(self, work, args, where, by_keys):
    tables, queries, keys = args
    side, names = (keys, ("k", "v")) if by_keys else (queries, ("q",))
    outs = {
      "side": {
        name: shape((work.B, work.H, *side[name].shape[2:]), jnp.float32)
        for name in names
      },
      "tables": self._table_sums(work, tables) if by_keys else [],
    }

    def start(values):
      rows = work.tile.M if by_keys else work.tile.L
      zeros = {n: jnp.zeros((rows, side[n].shape[-1]), jnp.float32) for n in names}
      flat = jax.tree.leaves(loads.trained(work, values)) if by_keys else []
      return zeros, [jnp.zeros(x.shape, jnp.float32) for x in flat]

    def visit(tile, values, state):
      sums, sums_of_tables = state
      d = tile.backward(values)
      of = {"q": d.q_LK, "k": d.k_MK, "v": d.v_ME}
      sums = {name: sums[name] + of[name] for name in names}
      if by_keys:
        more = jax.tree.leaves(d.tables)
        sums_of_tables = [
          a + b.astype(a.dtype) for a, b in zip(sums_of_tables, more, strict=True)
        ]
      return sums, sums_of_tables

    def end(state, outs):
      for name, d in state[0].items():
        outs["side"][name][...] = d
      for out, d in zip(outs["tables"], state[1], strict=True):
        out[...] = jnp.broadcast_to(d, out.shape)

    products = 4 if by_keys else 3
    return self._run(work, args, where, by_keys, outs, (start, visit, end), products)

  def _table_sums(self, work, tables):
    """Returns shapes of the tables' gradients, one sum for each block of keys."""
    blocks = work.M // work.tile.M
    padded = jax.tree.map(padded_to_power_of_two, tables)
    return [
      shape((work.B, x.shape[0], blocks, *x.shape[1:]), jnp.float32)
      for x in jax.tree.leaves(loads.trained(work, padded))
    ]

  def _program(self, work, by_keys, others, steps):
    """Returns the body of a kernel: one program visits the blocks of the other side.

    work      static description of the call
    by_keys   whether it has a block of keys, and visits queries
    others    number of blocks of the other side
    steps     (start, visit, end) of the blocks
    """
    start, visit, end = steps

    def body(visited, tables, queries, keys, outs):
      values = loads.read_tables(work, tables)
      near, far = (keys, queries) if by_keys else (queries, keys)

      def step(n, state):
        size = work.tile.L if by_keys else work.tile.M
        part = cut(far, n, size, not by_keys)
        q_refs, k_refs = (part, near) if by_keys else (near, part)

        def visit_tile(state):
          tile = loads.LoadedTile(work, self.variant, q_refs, k_refs, 0)
          return visit(tile, values, state)

        return jax.lax.cond(visited[n] > 0, visit_tile, lambda state: state, state)

      end(jax.lax.fori_loop(0, others, step, start(values)), outs)

    return body

  def _run(self, work, args, where, by_keys, outs, steps, products):
    """Returns the outputs of a kernel.

    work       static description of the call
    args       tables, queries and keys
    where      block mask and `shift_B`
    by_keys    whether programs have a block of keys, and visit queries
    outs       shapes of the outputs
    steps      (start, visit, end) of the blocks that a program visits
    products   matrix products in a tile
    """
    tables, queries, keys = args
    tables = jax.tree.map(padded_to_power_of_two, tables)
    mask_Bnn = where["mask_Bnn"].astype(jnp.int32)
    mask_Bnn = jnp.swapaxes(mask_Bnn, 1, 2) if by_keys else mask_Bnn
    own, others = mask_Bnn.shape[1:]
    block = BlockSpecs(work, by_keys)
    run = pl.pallas_call(
      self._program(work, by_keys, others, steps),
      outs,
      grid=(own, work.H, work.B),
      in_specs=[
        block.flags(mask_Bnn),
        jax.tree.map(block.table, tables),
        layout.by_name(block.queries, queries),
        layout.by_name(block.keys, keys),
      ],
      out_specs=block.outputs(outs),
      interpret=self.interpret,
      compiler_params=plgpu.CompilerParams(num_warps=4, num_stages=1),
      cost_estimate=layout.cost(work, products, (tables, queries, keys), outs),
    )
    return run(mask_Bnn, tables, queries, keys)
