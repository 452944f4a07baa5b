"""Bytes read from compiled programs equal those counted by hand, and XLA's own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from experiments.estimating import hlo
from experiments.estimating.traffic import Collective, group, share, traffic

N = 8  # simulated devices


@pytest.fixture(scope="module")
def mesh():
  return Mesh(np.array(jax.devices()).reshape(2, 4), ("data", "tensor"))


def compiled(function, *shapes):
  like = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
  return jax.jit(function).lower(*like).compile()


# {kind: function of a part of (8, 64) float32, and bytes that each device sends}
PART = 64 * 4
SENDS = {
  "all-reduce": (lambda x: jax.lax.psum(x, ("data", "tensor")), 2 * PART * 7 / 8),
  "all-gather": (lambda x: jax.lax.all_gather(x, "tensor", axis=1), PART * 3),
  "reduce-scatter": (
    lambda x: jax.lax.psum_scatter(x, "tensor", scatter_dimension=1, tiled=True),
    PART * 3 / 4,
  ),
  "collective-permute": (
    lambda x: jax.lax.ppermute(x, "data", [(0, 1), (1, 0)]),
    PART,
  ),
  "all-to-all": (
    lambda x: jax.lax.all_to_all(x, "tensor", 1, 0, tiled=True),
    PART * 3 / 4,
  ),
}


@pytest.mark.parametrize("kind", SENDS)
def test_a_collective_sends_what_a_ring_sends_as_often_as_its_loop_runs(kind, mesh):
  collective, sent = SENDS[kind]
  split = PartitionSpec(("data", "tensor"))

  def loop(x):
    def body(_, carry):
      return carry + jnp.sum(collective(carry * 2))

    return jax.lax.fori_loop(0, 5, body, x)

  run = jax.shard_map(loop, mesh=mesh, in_specs=split, out_specs=split, check_vma=False)
  found = traffic(compiled(run, (N, 64)).as_text())
  assert found.collectives == {kind: Collective(5, pytest.approx(5 * sent))}
  assert found.sent == pytest.approx(5 * sent)
  assert found.open_loops == 0


def test_a_sharded_product_reduces_along_the_axis_that_splits_it(mesh):
  place = lambda *axes: NamedSharding(mesh, PartitionSpec(*axes))
  product = jax.jit(lambda x, w: x @ w, out_shardings=place())
  x = jax.ShapeDtypeStruct((16, 32), jnp.float32, sharding=place(None, "tensor"))
  w = jax.ShapeDtypeStruct((32, 8), jnp.float32, sharding=place("tensor"))
  found = traffic(product.lower(x, w).compile().as_text())
  assert found.collectives == {"all-reduce": Collective(1, 16 * 8 * 4 * 2 * 3 / 4)}


def test_bytes_of_a_program_without_loops_are_those_of_xla():
  def layers(x, w):
    y = jnp.tanh(x @ w)
    return jnp.sort(y, axis=0) @ w + jnp.sin(x)

  program = compiled(layers, (256, 128), (128, 128))
  (cost,) = [program.cost_analysis()]
  assert traffic(program.as_text()).hbm == pytest.approx(
    cost["bytes accessed"], rel=0.1
  )


def test_a_loop_moves_what_its_body_moves_times_its_length():
  layer = lambda x, w: (jnp.tanh(x @ w), None)
  scan = functools.partial(jax.lax.scan, layer)
  moved = {}
  for layers in (6, 12):
    program = compiled(lambda x, w: scan(x, w)[0], (64, 128), (layers, 128, 128))
    moved[layers] = traffic(program.as_text()).hbm
    # XLA counts the body once.
    assert program.cost_analysis()["bytes accessed"] < moved[layers] / 2
  # A layer reads its own 64 KiB of weights, not those of all.
  each = (moved[12] - moved[6]) / 6
  assert 128 * 128 * 4 < each < 6 * 128 * 128 * 4


def test_a_loop_whose_length_the_data_decide_counts_once_and_is_reported():
  def search(x, end):
    return jax.lax.while_loop(lambda x: jnp.sum(x) < end[0], lambda x: x * 2 + 1, x)

  assert traffic(compiled(search, (4096,), (1,)).as_text()).open_loops == 1


TPU = """HloModule jit_step, is_scheduled=true, num_partitions=16

%add.1 (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %add = f32[] add(%x, %y)
}

%all-reduce-scatter.1 (input: bf16[8,64]) -> bf16[2,64] {
  %input = bf16[8,64]{1,0:T(8,128)} parameter(0)
  %all-reduce.1 = bf16[8,64]{1,0} all-reduce(%input), channel_id=3, \
replica_groups={{0,2,4,6},{1,3,5,7}}, to_apply=%add.1
  %zero = s32[] constant(0)
  ROOT %part = bf16[2,64]{1,0} dynamic-slice(%all-reduce.1, %zero, %zero)
}

%start.1 (p: bf16[2,64]) -> (bf16[2,64], bf16[8,64], u32[]) {
  %p = bf16[2,64]{1,0:T(8,128)S(1)} parameter(0)
  %all-gather.1 = bf16[8,64]{1,0} all-gather(%p), channel_id=6, \
replica_groups=[4,4]<=[16], dimensions={0}
  ROOT %begun = (bf16[2,64]{1,0}, bf16[8,64]{1,0}, u32[]{:S(2)}) custom-call(\
%all-gather.1), custom_call_target="AsyncCollectiveStart"
}

%done.1 (q: bf16[8,64]) -> bf16[8,64] {
  %q = bf16[8,64]{1,0:T(8,128)S(1)} parameter(0)
  %all-gather.2 = bf16[8,64]{1,0} all-gather(%q), channel_id=6, \
replica_groups=[4,4]<=[16], dimensions={0}
  ROOT %ended = bf16[8,64]{1,0} custom-call(%all-gather.2), custom_call_target="Done"
}

%body.1 (carry: (s32[], bf16[8,64])) -> (s32[], bf16[8,64]) {
  %carry = (s32[]{:T(128)}, bf16[8,64]{1,0:T(8,128)}) parameter(0)
  %step = s32[]{:T(128)} get-tuple-element(%carry), index=0
  %one = s32[] constant(1)
  %next = s32[] add(%step, %one)
  %rows = bf16[8,64]{1,0:T(8,128)} get-tuple-element(%carry), index=1
  %fetch = (bf16[8,64]{1,0:T(8,128)S(1)}, bf16[8,64]{1,0}, u32[]{:S(2)}) \
copy-start(%rows)
  %fetched = bf16[8,64]{1,0:T(8,128)S(1)} copy-done(%fetch)
  %scattered = bf16[2,64]{1,0:T(8,128)S(1)} fusion(%fetched), kind=kCustom, \
calls=%all-reduce-scatter.1
  %begin = (bf16[2,64]{1,0:S(1)}, bf16[8,64]{1,0:S(1)}, u32[]{:S(2)}) fusion(\
%scattered), kind=kCustom, calls=%start.1
  %between = bf16[8,64]{1,0:S(1)} get-tuple-element(%begin), index=1
  %end = bf16[8,64]{1,0:T(8,128)S(1)} fusion(%between), kind=kCustom, calls=%done.1
  %all = bf16[8,64]{1,0:T(8,128)S(1)} all-reduce(%end), channel_id=9, \
replica_groups=mesh['axis_0'=2,'axis_1'=8] {'axis_1'}, to_apply=%add.1
  %store = (bf16[8,64]{1,0}, bf16[8,64]{1,0:S(1)}, u32[]{:S(2)}) copy-start(%all)
  %stored = bf16[8,64]{1,0:T(8,128)} copy-done(%store)
  ROOT %carried = (s32[], bf16[8,64]{1,0}) tuple(%next, %stored)
}

%condition.1 (state: (s32[], bf16[8,64])) -> pred[] {
  %limit = s32[]{:T(128)} constant(12)
  %state = (s32[]{:T(128)}, bf16[8,64]{1,0:T(8,128)}) parameter(0)
  %count = s32[]{:T(128)} get-tuple-element(%state), index=0
  ROOT %less = pred[]{:T(512)} compare(%count, %limit), direction=LT
}

ENTRY %main.1 (argument: bf16[8,64]) -> bf16[8,64] {
  %argument = bf16[8,64]{1,0:T(8,128)} parameter(0)
  %two = s32[] constant(2)
  %start = (s32[], bf16[8,64]{1,0}) tuple(%two, %argument)
  %loop = (s32[], bf16[8,64]{1,0}) while(%start), condition=%condition.1, body=%body.1
  ROOT %result = bf16[8,64]{1,0:T(8,128)} get-tuple-element(%loop), index=1
}
"""


def test_forms_that_only_tpus_have():
  """Fast memory, loops without a count, fused and divided collectives, mesh groups."""
  found = traffic(TPU)
  whole, part, times = 8 * 64 * 2, 2 * 64 * 2, 10  # of a counter from 2 to 12
  assert found.collectives == {
    "reduce-scatter": Collective(times, times * whole * share("reduce-scatter", 4)),
    "all-gather": Collective(times, times * part * share("all-gather", 4)),
    "all-reduce": Collective(times, times * whole * share("all-reduce", 8)),
  }
  # One copy from HBM and one to it; the counter's sums are nothing beside them.
  assert found.hbm == pytest.approx(times * 2 * whole, rel=0.02)


def test_a_program_is_read_into_computations():
  module = hlo.parse(TPU)
  assert module.devices == 16 and module.entry.name == "main.1"
  body = module.computations["body.1"]
  assert [each.op for each in body.instructions.values()][-1] == body.root.op == "tuple"
  assert body.instructions["fetched"].arrays[0].fast
  assert not body.instructions["stored"].arrays[0].fast
  loop = module.entry.instructions["loop"]
  assert hlo.trips(module, loop, module.entry) == 10


@pytest.mark.parametrize(
  "groups, size",
  [
    ("{{0,1},{2,3}}", 2),
    ("[2,8]<=[16]", 8),
    ("[8,2]<=[2,4,2]T(2,1,0)", 2),
    ("mesh['a'=2,'b'=8] {'a','b'}", 16),
    ("mesh['a'=2,'b'=8], device_ids=([2,8]T(1,0)) {'b'}", 8),
    ("mesh['a'=2,'b'=8] {'b':(1)4}", 4),
    ("{}", 16),
  ],
)
def test_every_form_of_groups_has_its_size(groups, size):
  rest = f", channel_id=1, replica_groups={groups}, to_apply=%add"
  each = hlo.Instruction("x", (), "all-reduce", "%y", rest, root=False)
  assert group(each, devices=16) == size


SLICED = """HloModule jit_layer, num_partitions=1

%read (stacked: f32[12,64], n: s32[]) -> f32[1,64] {
  %stacked = f32[12,64]{1,0} parameter(0)
  %n = s32[] parameter(1)
  %zero = s32[] constant(0)
  ROOT %one = f32[1,64]{1,0} dynamic-slice(%stacked, %n, %zero)
}

%write (all: f32[12,64], new: f32[1,64], m: s32[]) -> f32[12,64] {
  %all = f32[12,64]{1,0} parameter(0)
  %new = f32[1,64]{1,0} parameter(1)
  %m = s32[] parameter(2)
  %none = s32[] constant(0)
  %twice = f32[1,64]{1,0} add(%new, %new)
  ROOT %updated = f32[12,64]{1,0} dynamic-update-slice(%all, %twice, %m, %none)
}

ENTRY %main (a: f32[12,64], b: f32[12,64], i: s32[]) -> f32[12,64] {
  %a = f32[12,64]{1,0} parameter(0)
  %b = f32[12,64]{1,0} parameter(1)
  %i = s32[] parameter(2)
  %layer = f32[1,64]{1,0} fusion(%a, %i), kind=kLoop, calls=%read
  ROOT %out = f32[12,64]{1,0} fusion(%b, %layer, %i), kind=kLoop, calls=%write
}
"""


def test_fusions_move_the_slices_that_they_read_and_write():
  """Of twelve layers one is read, and written in place: four rows and two indices."""
  assert traffic(SLICED).hbm == 4 * 64 * 4 + 2 * 4


def test_fusions_inside_of_fusions_move_the_slices_too():
  """TPUs fuse what a product reads in a fusion of its own, inside of the product's."""
  nested = SLICED.replace(
    "%write (all",
    """%around (whole: f32[12,64], k: s32[]) -> f32[1,64] {
  %whole = f32[12,64]{1,0} parameter(0)
  %k = s32[] parameter(1)
  ROOT %inner = f32[1,64]{1,0} fusion(%whole, %k), kind=kLoop, calls=%read
}

%write (all""",
  ).replace("calls=%read\n  ROOT %out", "calls=%around\n  ROOT %out")
  assert nested.count("calls=%around") == 1
  assert traffic(nested).hbm == traffic(SLICED).hbm
  outer = """%store (c: f32[12,64], d: f32[1,64], l: s32[]) -> f32[12,64] {
  %c = f32[12,64]{1,0} parameter(0)
  %d = f32[1,64]{1,0} parameter(1)
  %l = s32[] parameter(2)
  ROOT %stored = f32[12,64]{1,0} fusion(%c, %d, %l), kind=kLoop, calls=%write
}

ENTRY"""
  nested = SLICED.replace("calls=%write\n}", "calls=%store\n}").replace("ENTRY", outer)
  assert traffic(nested).hbm == traffic(SLICED).hbm
