"""Bytes that kernels move, counted from their grids, equal those counted by hand."""

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from experiments.bench import bytes_moved

ROW = 8 * 128 * 4  # bytes of a block of [8, 128] float32


def kernel(fetch, x, y, out):
  out[...] = x[...] + y[...]


def call(fetch, x, y):
  """Adds, to each of 3 blocks of x, two blocks of y that a list names."""
  x_block = pl.BlockSpec((8, 128), lambda i, j, fetch: (i, 0))
  y_block = pl.BlockSpec((8, 128), lambda i, j, fetch: (fetch[2 * i + j], 0))
  spec = pltpu.PrefetchScalarGridSpec(
    num_scalar_prefetch=1,
    grid=(3, 2),
    in_specs=[x_block, y_block],
    out_specs=x_block,
  )
  return pl.pallas_call(kernel, jax.ShapeDtypeStruct(x.shape, x.dtype), grid_spec=spec)(
    fetch, x, y
  )


def test_a_block_is_moved_again_only_when_its_index_changes():
  def program(x, y):
    fetch = jnp.asarray([0, 0, 0, 1, 2, 2], jnp.int32) + 0 * jnp.arange(6)
    return jax.jit(call)(fetch, x, y) + 1

  x = jax.ShapeDtypeStruct((24, 128), jnp.float32)
  (found,) = bytes_moved.of_kernels(jax.make_jaxpr(program)(x, x))
  scalars, of_x, of_y, of_out = found.blocks
  assert (scalars, of_x, of_y, of_out) == (6 * 4, 3 * ROW, 3 * ROW, 3 * ROW)
  assert found.grid == (3, 2)
  assert found.visited == 4  # of 6 steps: at 0, 2, 3 and 4 a block of x or y changes


def test_a_list_that_the_arguments_decide_is_refused():
  like = jax.ShapeDtypeStruct((24, 128), jnp.float32)
  fetch = jax.ShapeDtypeStruct((6,), jnp.int32)
  with pytest.raises(ValueError, match="depend on the program's arguments"):
    bytes_moved.of_kernels(jax.make_jaxpr(call)(fetch, like, like))


def test_bytes_around_kernels_leave_out_kernels_and_copies_that_bring_nearer():
  text = """HloModule m
ENTRY %main (x: f32[8,128]) -> f32[8,128] {
  %x = f32[8,128]{1,0:T(8,128)} parameter(0)
  %start = (f32[8,128]{1,0:S(1)}, f32[8,128]{1,0}, u32[]{:S(2)}) copy-start(%x)
  %near = f32[8,128]{1,0:S(1)} copy-done(%start)
  %call = f32[8,128]{1,0} custom-call(%near), custom_call_target="tpu_custom_call"
  ROOT %out = f32[8,128]{1,0} add(%call, %near)
}
"""
  assert bytes_moved.around_kernels(text) == 2 * ROW  # of three arrays one is near
  assert bytes_moved.around_kernels(text, fast=True) == 3 * ROW
