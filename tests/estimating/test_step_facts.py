"""Facts of small programs, as text and as compiled here, equal those read by hand."""

import jax
import jax.numpy as jnp
import pytest

from experiments.estimating import hlo
from experiments.estimating.collective_overlap import Overlap, overlaps
from experiments.estimating.source_lines import SourceLines
from experiments.estimating.step_facts import LargeCopy, facts, multiplications

MIB = 2**20
# A loop of two iterations. The first permute is under way while a product runs, the
# second is waited for at once, and the all-reduce has no start.
TEXT = """HloModule jit_step, is_scheduled=true, input_output_alias={ {0}: (0, {}, \
may-alias) }, entry_computation_layout={(f32[4096,2048])->(f32[4096,2048], f32[64])}, \
num_partitions=4
FileNames
1 "/home/me/site-packages/flax/core.py"
2 "/home/me/transformer_jax/positions/rope.py"
3 "/home/me/transformer_jax/training/loss.py"

FunctionNames
1 "turn"

FileLocations
1 {file_name_id=2 function_name_id=1 line=119 end_line=119 column=1 end_column=2}
2 {file_name_id=1 function_name_id=1 line=7 end_line=7 column=1 end_column=2}
3 {file_name_id=3 function_name_id=1 line=9 end_line=9 column=1 end_column=2}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=2}
3 {file_location_id=3 parent_frame_id=1}

%product.1 (x: bf16[4096,64], w: bf16[64,64]) -> bf16[4096,64] {
  %x = bf16[4096,64]{1,0} parameter(0)
  %w = bf16[64,64]{1,0} parameter(1)
  ROOT %dot = bf16[4096,64]{1,0} convolution(%x, %w), dim_labels=bf_io->bf
}

%moves.1 (x: f32[4096,2048]) -> f32[2048,4096] {
  %x.1 = f32[4096,2048]{1,0} parameter(0)
  ROOT %turned = f32[2048,4096]{1,0} transpose(%x.1), dimensions={1,0}
}

%condition.1 (state: (s32[], f32[4096,2048])) -> pred[] {
  %state = (s32[], f32[4096,2048]{1,0}) parameter(0)
  %count = s32[] get-tuple-element(%state), index=0
  %two = s32[] constant(2)
  ROOT %less = pred[] compare(%count, %two), direction=LT
}

%body.1 (state: (s32[], f32[4096,2048])) -> (s32[], f32[4096,2048]) {
  %state.1 = (s32[], f32[4096,2048]{1,0}) parameter(0)
  %count.1 = s32[] get-tuple-element(%state.1), index=0
  %one = s32[] constant(1)
  %next = s32[] add(%count.1, %one)
  %big = f32[4096,2048]{1,0} get-tuple-element(%state.1), index=1
  %part = bf16[64,64]{1,0} constant(0)
  %rows = bf16[4096,64]{1,0} constant(0)
  %permute-start.1 = (bf16[64,64]{1,0}, bf16[64,64]{1,0}, u32[], u32[]) \
collective-permute-start(%part), channel_id=1, source_target_pairs={{0,1},{1,0}}
  %fusion.1 = bf16[4096,64]{1,0} fusion(%rows, %part), kind=kOutput, \
calls=%product.1, backend_config={"window_config":{"estimated_cycles":"600"}}
  %permute-done.1 = bf16[64,64]{1,0} collective-permute-done(%permute-start.1)
  %permute-start.2 = (bf16[64,64]{1,0}, bf16[64,64]{1,0}, u32[], u32[]) \
collective-permute-start(%part), channel_id=2, source_target_pairs={{0,1},{1,0}}
  %permute-done.2 = bf16[64,64]{1,0} collective-permute-done(%permute-start.2)
  %fusion.2 = bf16[4096,64]{1,0} fusion(%rows, %permute-done.2), kind=kOutput, \
calls=%product.1, backend_config={"window_config":{"estimated_cycles":"600"}}
  %fusion.3 = f32[2048,4096]{1,0} fusion(%big), kind=kLoop, calls=%moves.1, \
metadata={op_name="jit(step)/turn" stack_frame_id=2}, \
backend_config={"window_config":{"estimated_cycles":"300"}}
  %reduced = f32[64]{0} all-reduce(%sums), channel_id=3, replica_groups={{0,1,2,3}}
  %sums = f32[64]{0} constant(0)
  %logits = f32[4096,512]{1,0} broadcast(%sums), metadata={op_name="x" \
stack_frame_id=3}
  %kernel = f32[64]{0} custom-call(%sums), custom_call_target="tpu_custom_call"
  %exp.1 = f32[64]{0} exponential(%sums), \
backend_config={"window_config":{"estimated_cycles":"500"}}
  ROOT %out = (s32[], f32[4096,2048]{1,0}) tuple(%next, %big)
}

ENTRY %main (x: f32[4096,2048]) -> (f32[4096,2048], f32[64]) {
  %x.2 = f32[4096,2048]{1,0} parameter(0)
  %zero = s32[] constant(0)
  %start = (s32[], f32[4096,2048]{1,0}) tuple(%zero, %x.2)
  %loop = (s32[], f32[4096,2048]{1,0}) while(%start), condition=%condition.1, \
body=%body.1
  %end = f32[4096,2048]{1,0} get-tuple-element(%loop), index=1
  %metric = f32[64]{0} constant(0)
  ROOT %results = (f32[4096,2048]{1,0}, f32[64]{0}) tuple(%end, %metric)
}
"""


def test_of_a_step_each_fact_is_that_of_its_text():
  found = facts(TEXT, steps=2, vocabulary=512, width=64)
  assert found.cycles == {"products": 1200, "copies": 300, "other": 500}
  assert found.kernels == 1
  assert found.undonated == 64 * 4
  assert found.logits == 4096 * 512 * 4
  assert found.host == found.float64 == () and found.float32 == 0
  (copy,) = found.copies
  moved = 2 * 4096 * 2048 * 4 / 1e9
  line = "transformer_jax/positions/rope.py:119"  # called by flax, which is not ours
  assert copy == LargeCopy("f32[2048,4096]", line, 1, pytest.approx(moved))
  assert found.copied_gb == pytest.approx(moved)
  assert facts(TEXT, steps=1).copies[0].times == 2
  sent = 64 * 64 * 2
  assert found.overlap["collective-permute"] == Overlap(2 * sent, sent)
  assert found.overlap["all-reduce"] == Overlap(64 * 4 * 1.5, 0)


DOT = "dot(%x, %y), lhs_batch_dims={0}, rhs_batch_dims={0}, lhs_contracting_dims={2}"
SUMMED = "convolution(%x, %y), window={size=16}, dim_labels=0bf_0io->0bf"


@pytest.mark.parametrize(
  ("op", "x", "y", "result", "want"),
  [
    (f"{DOT}, rhs_contracting_dims={{2}}", "8,5,3", "8,7,3", "8,5,7", 8 * 5 * 7 * 3),
    ("convolution(%x, %y), dim_labels=bf_io->bf", "5,3", "3,7", "5,7", 5 * 7 * 3),
    # 16 heads, one by one; and summed over.
    (SUMMED, "16,5,3", "16,3,7", "16,5,7", 16 * 5 * 7 * 3),
    (SUMMED, "16,5,3", "16,3,7", "1,5,7", 16 * 5 * 7 * 3),
  ],
)
def test_multiplications_of_a_product_are_those_of_its_sums(op, x, y, result, want):
  text = f"""ENTRY %main (x: f32[{x}]) -> f32[{result}] {{
  %x = f32[{x}] parameter(0)
  %y = bf16[{y}] parameter(1)
  ROOT %z = f32[{result}] {op}
}}"""
  entry = hlo.parse(text).entry
  operands = [entry.instructions[name].arrays[0] for name in "xy"]
  assert multiplications(entry.root, operands) == want
  assert facts(text, steps=1).products == 1 and facts(text, steps=1).float32 == 0


def test_what_a_step_should_not_have_is_named():
  """A transfer to the host, numbers of 64 bits, a product of float32, no donation."""
  bad = TEXT.replace("bf16[", "f32[").replace("input_output_alias", "no_alias")
  bad = bad.replace("%metric = f32[64]{0}", "%metric = f64[64]{0}")
  bad = bad.replace('"tpu_custom_call"', '"xla_python_cpu_callback"', 1)
  found = facts(bad, steps=2)
  assert found.host == ("custom-call kernel",) and found.kernels == 0
  assert found.float64 == ("constant metric",)
  assert found.float32 == 1
  assert found.undonated == 4096 * 2048 * 4 + 64 * 4


@pytest.mark.parametrize(
  "send", ["infeed(%sums)", "send(%sums), is_host_transfer=true"]
)
def test_transfers_to_the_host_are_named(send):
  text = TEXT.replace("exponential(%sums)", send)
  assert facts(text, steps=1).host == (f"{send.partition('(')[0]} exp.1",)


def test_a_collective_in_a_fusion_with_a_product_runs_beside_it():
  inside = "  %all = bf16[256,64]{1,0} all-gather(%w), replica_groups={{0,1,2,3}}\n"
  fused = TEXT.replace("  ROOT %dot =", f"{inside}  ROOT %dot =")
  found = overlaps(hlo.parse(fused))
  sent = 3 * 64 * 64 * 2  # of two fusions in a loop of two
  assert found["all-gather"] == Overlap(4 * sent, 4 * sent)


@pytest.mark.parametrize("between", ["", "fusion(%rows, %part), calls=%product.1"])
def test_a_collective_divided_among_fusions_is_under_way_from_first_to_last(between):
  text = TEXT.replace(
    "%moves.1 (x",
    """%part.1 (p: bf16[64,64]) -> bf16[256,64] {
  %p = bf16[64,64]{1,0} parameter(0)
  ROOT %all = bf16[256,64]{1,0} all-gather(%p), channel_id=9, \
replica_groups={{0,1,2,3}}
}

%moves.1 (x""",
  )
  piece = "  %{} = bf16[256,64]{{1,0}} fusion(%part), kind=kCustom, calls=%part.1\n"
  middle = f"  %middle = bf16[4096,64]{{1,0}} {between}\n" if between else ""
  pieces = piece.format("begin") + middle + piece.format("end")
  text = text.replace("  %reduced =", f"{pieces}  %reduced =")
  sent = 2 * 3 * 64 * 64 * 2
  found = overlaps(hlo.parse(text))["all-gather"]
  assert found == Overlap(sent, sent if between else 0)


def test_source_lines_are_those_of_the_compiler():
  def turned(x):
    return jnp.sin(x) @ x

  text = jax.jit(turned).lower(jnp.ones((8, 8))).compile().as_text()
  lines, module = SourceLines(text), hlo.parse(text)
  frames = [
    each.attribute(r"stack_frame_id=(\d+)")
    for each in module.entry.instructions.values()
  ]
  first = turned.__code__.co_firstlineno + 1
  found = {lines.of_frame(int(frame), "estimating") for frame in frames if frame}
  assert f"estimating/test_step_facts.py:{first}" in found
  assert lines.of_frame(10**6, "estimating") == ""


def test_donation_and_float32_are_read_from_a_program_compiled_here():
  def step(w, x):
    return w - x.T @ (x @ w), jnp.sum(x)

  like = jax.ShapeDtypeStruct((64, 64), jnp.float32)
  compiled = [
    jax.jit(step, donate_argnums=donated).lower(like, like).compile().as_text()
    for donated in ((), 0)
  ]
  kept, donated = (facts(text, steps=1) for text in compiled)
  assert kept.undonated == 64 * 64 * 4 + 4 and donated.undonated == 4
  assert donated.host == donated.float64 == () and donated.copies == ()
