"""Attention in one kernel for NVIDIA GPUs, through Triton.

Dao et al., 2022, https://arxiv.org/abs/2205.14135, written in Pallas with the tiles of
`pallas_tpu`. It has been compiled for an H100 and interpreted on a CPU, where it equals
`dense`; it has not run on a GPU. `auto` compares it with `dense` before it is used.
"""

import dataclasses
import functools
import math
from typing import Any

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
  visits,
)
from transformer_jax.attention.cores.pallas.lowering import Hook
from transformer_jax.attention.cores.pallas.score_program import finish, grow
from transformer_jax.attention.cores.per_device import on_each_device
from transformer_jax.attention.variants.bound_variant import MASKED, PLAIN, BoundVariant
from transformer_jax.devices import platform

# Four warps issue the products of 64 rows together on Hopper (wgmma). While a tile is
# computed the next one is loaded: with heads of 128, keys and values take 64 KiB.
WARPS, STAGES = 4, 2
LACKING = {"slice"}  # primitives that Triton's lowering has not and encodings use
SHARED = 227 * 2**10  # bytes of shared memory of a processor, on an H100 or H200
LEAST = 16, 16  # rows and columns of a tile that tensor cores take
shape = jax.ShapeDtypeStruct


@cores.register("pallas_gpu")
@dataclasses.dataclass(frozen=True)
class PallasGPU(Core):
  """Visits tiles on a GPU and skips fully masked ones.

  block       queries and keys in a tile, a power of two from 16 on. None: 64, and less
              where an encoding computes many numbers for each query or pair
  interpret   run the kernel as ordinary JAX; None: wherever there is no GPU

  >>> import transformer_jax as tj
  >>> gpu = tj.cores.build("pallas_gpu")
  >>> print(gpu.refusal(tj.positions.build("alibi")))
  None
  >>> print(gpu.refusal(tj.positions.build("cope")).partition(";")[0])
  cope looks at whole rows of scores, and pallas_gpu never holds one
  """

  block: int | None = None
  interpret: bool | None = None

  @on_each_device
  def attend(self, q_BLHK, k_BMGK, v_BMGE, context):
    off = self._interpreted()
    least = (1, 1) if off else LEAST
    blocks = (self.block or block_for(_hooks(context.position.encoding)),)
    backend = GPUBackend(off, context.variant)
    return call.call(backend, blocks, least, q_BLHK, k_BMGK, v_BMGE, context)

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
    if reason:
      return reason
    lacking = {op for hook in _hooks(encoding) for op in hook.ops & LACKING}
    if lacking:
      return (
        f"{encoding.name} needs {min(lacking)} in each tile, which pallas_gpu has no"
        " form of; use model.core=blockwise or dense"
      )
    return None


def block_for(hooks: list[Hook]) -> int:
  """Returns the queries and keys in a tile, so that a tile's arrays fit a processor.

  hooks   of the encoding, traced for tiles of 16 x 16

  >>> import transformer_jax as tj
  >>> [block_for(_hooks(tj.positions.build(n))) for n in ("t5", "shaw", "fire")]
  [64, 64, 16]
  """
  if any(hook.depth > 2 for hook in hooks):  # arrays of [L, M, W] must fit registers
    return 16
  numbers = max([hook.largest for hook in hooks], default=0) // 16  # of a query
  return next((block for block, most in ((64, 128), (32, 256)) if numbers <= most), 16)


def _hooks(encoding):
  return call.hooks_of(encoding, room=False)


@dataclasses.dataclass(frozen=True, eq=False)
class GPUBackend:
  """GPU kernels: a program has one block of queries, or keys, and visits the others."""

  interpret: bool
  variant: BoundVariant
  room, form = False, layout.AS_GIVEN

  def forward(self, work, tables, queries, keys, where):
    """Returns out_BLHE, in the type of the values, and lse_BHL1.

    work      static description of the call
    tables    arrays that depend on parameters alone, by head
    queries   arrays of queries
    keys      arrays of keys and values
    where     block mask and `shift_B`
    """
    size = work.tile
    outs = {
      "out": shape(work.form.shape(work.B, work.H, work.L, size.E), keys["v"].dtype),
      "lse": shape((work.B, work.H, work.L, 1), jnp.float32),
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

    if not self.interpret:
      _require_small(work.tables)
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
    by_query = self._sweep(work, args, where, by_keys=False)["side"]
    by_key = self._sweep(work, args, where, by_keys=True)
    trained = loads.trained(work, tables)
    leaves, treedef = jax.tree.flatten(trained)
    # One sum for each block of keys in each row of the batch.
    sums = [jnp.sum(d, axis=(0, 2)) for d in by_key["tables"]]
    pairs = zip(sums, leaves, strict=True)
    d_tables = jax.tree.unflatten(treedef, [_unpadded(d, x) for d, x in pairs])
    for name in ("k", "v"):
      by_key["side"][name] = _of_groups(by_key["side"][name], work.G, keys[name].dtype)
    d_queries, d_keys = _filled(queries, by_query), _filled(keys, by_key["side"])
    return d_tables, d_queries, d_keys

  def _sweep(self, work, args, where, by_keys):
    tables, queries, keys = args
    side, names = (keys, ("k", "v")) if by_keys else (queries, ("q",))
    own = work.own_data[int(by_keys)]
    moving = loads.moving(side["data"])

    def heads(x, name):
      # In the type of the array, unless heads share it: their sums are float32.
      axis, sizes = 2 if name in names else 1, [*x.shape]
      sizes[0], sizes[axis] = work.B, work.H
      return shape(sizes, x.dtype if x.shape == (*sizes,) else jnp.float32)

    arrays = {name: side[name] for name in names}
    arrays["data"] = {name: side["data"][name] for name in moving}
    outs = {
      "side": layout.by_name(heads, arrays),
      "tables": self._table_sums(work, tables) if by_keys else [],
    }

    def start(values):
      rows = work.tile.M if by_keys else work.tile.L
      zeros: dict[str, Any] = {
        n: jnp.zeros((rows, side[n].shape[-1]), jnp.float32) for n in names
      }
      zeros["data"] = {n: jnp.zeros(own[n].shape, jnp.float32) for n in moving}
      flat = jax.tree.leaves(loads.trained(work, values)) if by_keys else []
      return zeros, [jnp.zeros(x.shape, jnp.float32) for x in flat]

    def visit(tile, values, state):
      sums, sums_of_tables = state
      d = tile.backward(values)
      of = {"q": d.q_LK, "k": d.k_MK, "v": d.v_ME}
      more = {name: of[name] for name in names}
      more["data"] = {n: (d.k_data if by_keys else d.q_data)[n] for n in moving}
      sums = jax.tree.map(_plus, sums, more)
      if by_keys:
        of_tables = jax.tree.leaves(d.tables)
        pairs = zip(sums_of_tables, of_tables, strict=True)
        sums_of_tables = [_plus(total, x) for total, x in pairs]
      return sums, sums_of_tables

    def end(state, outs):
      sums = state[0]
      for name in names:
        outs["side"][name][...] = sums[name].astype(outs["side"][name].dtype)
      for name, d in sums["data"].items():
        out = outs["side"]["data"][name]
        if layout.narrow(name):
          d = d[None, :] if by_keys else d[:, None]
        out[...] = d.reshape(out.shape).astype(out.dtype)
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
      size = work.tile.L if by_keys else work.tile.M

      def step(n, state):
        part = cut(far, visited[n], size, not by_keys)
        q_refs, k_refs = (part, near) if by_keys else (near, part)
        tile = loads.LoadedTile(work, self.variant, q_refs, k_refs, 0)
        return visit(tile, values, state)

      end(jax.lax.fori_loop(0, visited[others], step, start(values)), outs)

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
    mask_Bnn = where["mask_Bnn"]
    mask_Bnn = jnp.swapaxes(mask_Bnn, 1, 2) if by_keys else mask_Bnn
    visited_BnN = visits(mask_Bnn)
    own, others = mask_Bnn.shape[1:]
    block = BlockSpecs(work, by_keys)
    run = pl.pallas_call(
      self._program(work, by_keys, others, steps),
      outs,
      grid=(own, work.H, work.B),
      in_specs=[
        block.visits(visited_BnN),
        jax.tree.map(block.table, tables),
        layout.by_name(block.queries, queries),
        layout.by_name(block.keys, keys),
      ],
      out_specs=block.outputs(outs),
      interpret=self.interpret,
      compiler_params=plgpu.CompilerParams(num_warps=WARPS, num_stages=STAGES),
      cost_estimate=layout.cost(work, products, (tables, queries, keys), outs),
    )
    return run(visited_BnN, tables, queries, keys)


def _require_small(tables):
  """Raises ValueError for a table of vectors that Triton cannot hold.

  It multiplies from shared memory, so smaller tiles would not help.
  """
  for x in jax.tree.leaves(tables):
    kib = math.prod(x.shape) * x.dtype.itemsize / 2**10
    if len(x.shape) > 1 and min(x.shape) > 1 and kib > SHARED / 2**10:
      raise ValueError(
        f"pallas_gpu would multiply each tile with a table of {x.shape[0]} x"
        f" {x.shape[1]} numbers, {kib:,.0f} KiB, and a GPU's processor holds"
        f" {SHARED / 2**10:.0f}; use model.core=blockwise, or a shorter table"
      )


def _plus(total, x):
  """Returns a sum with a gradient of a tile; None adds nothing."""
  return total if x is None else total + x.astype(total.dtype)


def _of_groups(d_BMHK, G, dtype):
  """Returns gradients of heads summed over those that share one, [B, M, G, K]."""
  B, M, H, K = d_BMHK.shape
  if H == G:
    return d_BMHK
  return jnp.sum(d_BMHK.reshape(B, M, G, H // G, K), axis=3).astype(dtype)


def _unpadded(d, x):
  """Returns the gradient of a table without the padding of its axes."""
  return d[tuple(slice(n) for n in x.shape)]


def _filled(side, grads):
  """Returns gradients of queries or keys; None for token data without a gradient."""
  return grads | {"data": {n: grads["data"].get(n) for n in side["data"]}}
