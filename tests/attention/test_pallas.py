"""Kernels for TPUs and GPUs, interpreted, equal the definition; and what they refuse.

Tiles are tiny, so that a text of 24 tokens has several, some of which see nothing.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_positions import DIMS, EITHER_WAY, MODES, B, H, K, L, attend, inputs

from transformer_jax.attention import PLAIN, BoundVariant, Variant, attentions
from transformer_jax.attention.cores import cores, cudnn
from transformer_jax.attention.cores.pallas import gather, gpu_blocks, primitives
from transformer_jax.numpy_interpreter import evaluate, trace
from transformer_jax.positions import PositionalEncoding, bind, coords, positions

TPU, GPU = "pallas_tpu(block=8)", "pallas_gpu(block=8)"
# A bias by diagonals; tables that queries multiply, and values.
QUICK = "t5", "shaw"
ACTING = [
  name
  for name in sorted(positions)
  if any(map(positions.build(name).overrides, ("bias", "score", "values")))
  and cores.build(TPU).refusal(positions.build(name)) is None
]
ON_GPU = [n for n in ACTING if cores.build(GPU).refusal(positions.build(n)) is None]
KINDS = ("causal", "packed", "left_padded", "randomized", "first_half")
OTHER_KINDS = ("bidirectional", "packed, prefix")


def gradient(core, encoding, *like):
  """Returns `(inputs, at, g) -> ((loss, output), gradients)`, dense in NumPy."""

  def loss(inputs, at, g):
    out = attend(cores.build(core), encoding, *inputs, at)
    return jnp.sum(out * g), out

  run = jax.value_and_grad(loss, has_aux=True)
  return trace(run, *like) if core == "dense" else jax.jit(run)


def close(got, want, atol=1e-5):
  """Compares trees of arrays, each by its largest entry."""
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
    np.testing.assert_allclose(a, b, atol=atol * (1 + np.abs(b).max()))


def equal(core, encoding, modes, atol=1e-5):
  g_BLHK = jax.random.normal(jax.random.key(7), (B, L, H, K))
  like = inputs(encoding), modes[0], g_BLHK
  tested, dense = (gradient(name, encoding, *like) for name in (core, "dense"))
  for at in modes:
    got, want = (run(inputs(encoding), at, g_BLHK) for run in (tested, dense))
    close(got, want, atol)


def in_reach(name):
  """Returns an encoding; beyond its table tupe is NaN."""
  return positions.build({"tupe": "tupe(max_positions=512)"}.get(name, name))


@pytest.mark.parametrize("name", QUICK)
def test_the_tpu_kernel_gives_the_dense_answer_and_all_gradients(name):
  equal(TPU, positions.build(name), [MODES[kind] for kind in KINDS])


@pytest.mark.parametrize("name", QUICK)
def test_the_gpu_kernel_gives_the_dense_answer_and_all_gradients(name):
  equal(GPU, positions.build(name), [MODES[kind] for kind in KINDS])


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*ACTING} - {*QUICK}))
def test_every_other_encoding_in_the_tpu_kernel(name):
  # cpb as in the GPU kernel, below.
  atol = 2e-5 if name == "cpb" else 1e-5
  equal(TPU, in_reach(name), [MODES[kind] for kind in KINDS], atol)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["none", *sorted({*ON_GPU} - {*QUICK})])
def test_every_other_encoding_in_the_gpu_kernel(name):
  # Biases up to 16 round off more: in float64 the gradient of cpb's shift, a sum over
  # all pairs, differs by 1.3e-5 from the kernel's and by 9e-6 from the definition's.
  atol = 2e-5 if name == "cpb" else 1e-5
  equal(GPU, in_reach(name), [MODES[kind] for kind in KINDS], atol)


@pytest.mark.slow
@pytest.mark.parametrize("core", [TPU, GPU])
def test_kernels_look_both_ways(core):
  encoding = positions.build("t5").bidirectional()
  equal(core, encoding, [EITHER_WAY[kind] for kind in OTHER_KINDS])


def test_jax_s_own_attention_with_our_masks_gives_the_dense_answer():
  modes = [MODES[kind] for kind in KINDS]
  modes += [EITHER_WAY["bidirectional"], MODES["right_padded"].bidirectional()]
  equal("cudnn(implementation='xla')", PositionalEncoding(), modes)


def test_rows_of_one_text_need_no_array_of_all_pairs():
  def form(at, forms=4):
    return int(evaluate(lambda: cudnn._form(at, at, forms)))

  kinds = {"causal": cudnn.FULL, "randomized": cudnn.FULL}
  kinds |= dict.fromkeys(("first_half", "right_padded"), cudnn.PADDED)
  kinds |= dict.fromkeys(("packed", "left_padded"), cudnn.MASKED)
  assert {name: form(MODES[name]) for name in kinds} == kinds
  padded = MODES["right_padded"].bidirectional()
  assert [form(at) for at in (EITHER_WAY["bidirectional"], padded)] == [3, 3]
  assert cudnn.BOTH_WAYS == 3 and form(padded, forms=3) == cudnn.MASKED
  assert form(EITHER_WAY["prefix"]) == cudnn.MASKED
  # A text never seen from its start: a cache's keys, and queries of another text.
  causal, moved = MODES["causal"], MODES["moved"]
  assert form(moved) == cudnn.MASKED
  other = causal.replace(segment_BL=causal.segment_BL + 1)
  assert int(evaluate(lambda: cudnn._form(causal, other, 4))) == cudnn.MASKED


def test_cudnn_slides_a_window_over_grouped_keys():
  variant = attentions.build("gqa(2) + window(5)")
  keys = jax.random.split(jax.random.key(0), 3)
  shapes = (B, L, H, K), (B, L, 2, K), (B, L, 2, K)
  qkv = [jax.random.normal(key, s) for key, s in zip(keys, shapes, strict=True)]
  position = bind(PositionalEncoding(), {}, DIMS)

  def loss(core, qkv, at):
    bound = BoundVariant(variant)
    out = cores.build(core)(*qkv, at, at, position, None, bound)
    return jnp.sum(jnp.sin(out)), out

  run = jax.value_and_grad(loss, 1, has_aux=True)
  tested = jax.jit(functools.partial(run, "cudnn(implementation='xla')"))
  for name in ("causal", "right_padded", "left_padded"):
    want = evaluate(functools.partial(run, "dense"), qkv, MODES[name])
    close(tested(qkv, MODES[name]), want)


@dataclasses.dataclass(frozen=True)
class Sinks(Variant):
  """A learned scale, cap and further logit, and a window, all at once."""

  def init(self, key, dims):
    return {name: jnp.ones(dims.H) for name in ("scale_H", "cap_H", "extra_H")}

  def scale(self, params, K):
    return params["scale_H"]

  def logits(self, params, s_LM):
    return params["cap_H"] * jnp.tanh(s_LM / params["cap_H"])

  def sink_logit(self, params):
    return params["extra_H"]

  def mask(self, q_at, k_at):
    far_BLM = q_at.order_BL[:, :, None] - k_at.order_BL[:, None, :]
    return far_BLM < 9


@pytest.mark.parametrize("core", [TPU, pytest.param(GPU, marks=pytest.mark.slow)])
def test_variants_and_groups_of_keys_in_kernels(core):
  """Learned scale, cap, sink, window, two key heads, wider values, and L != M."""
  rows = jnp.array([0.3, 0.7, 1.1, 2.0])
  params = {"scale_H": rows, "cap_H": 3 * rows, "extra_H": rows - 1}
  keys = jax.random.split(jax.random.key(0), 4)
  draw = lambda key, *shape: jax.random.normal(key, shape)
  given = {
    "q": draw(keys[0], B, 6, H, K),
    "k": draw(keys[1], B, L, 2, K),
    "v": draw(keys[2], B, L, 2, 2 * K),
    "rule": params,
    "table": {"table_HN": draw(keys[3], H, 32)},
  }
  at = jax.tree.map(lambda x: x[:, L - 6 :], MODES["left_padded"])

  def loss(core, given):
    position = bind(positions.build("t5"), given["table"], DIMS)
    variant = BoundVariant(Sinks(), given["rule"])
    scale = variant.variant.scale(given["rule"], K)
    args = given["q"], given["k"], given["v"], at, MODES["left_padded"], position
    out = cores.build(core)(*args, scale, variant)
    return jnp.sum(jnp.sin(out)), out

  run = jax.value_and_grad(loss, 1, has_aux=True)
  got = jax.jit(run, static_argnums=0)(core, given)
  close(got, evaluate(functools.partial(run, "dense"), given))


def test_tables_are_read_and_added_up_alike_in_every_way():
  rng = np.random.default_rng(0)
  place = np.subtract.outer(np.arange(8), np.arange(8))
  index = np.clip(place + 3, 0, 6).astype(np.int32)
  x = rng.normal(size=(8, 8)).astype(np.float32)
  for rows in (1, 8):
    table = rng.normal(size=(rows, 7)).astype(np.float32)
    want = table[np.arange(8)[:, None] % rows, index]
    summed = np.zeros_like(table)
    np.add.at(summed, (np.arange(8)[:, None] % rows, index), x)
    for way in ("band", "loop", "range"):
      read = jax.jit(gather.READ[way])(table, index)
      np.testing.assert_allclose(read, want, atol=1e-6)
      add = jax.jit(functools.partial(gather.ADD[way], table.shape))
      got = add(x, index)
      np.testing.assert_allclose(got, summed, atol=1e-5)


def test_programs_visit_the_visible_tiles_and_no_others():
  mask_Bnn = jnp.array([[[1, 0, 0, 1], [0, 0, 0, 0]]], bool)
  visited_BnN = gpu_blocks.visits(mask_Bnn)
  assert visited_BnN[0, :, -1].tolist() == [2, 0]
  assert visited_BnN[0, 0, :2].tolist() == [0, 3]


def test_what_kernels_cannot_do_is_refused_by_name():
  refused = lambda core, encoding, variant="multihead", drop=False: cores.build(
    core
  ).refusal(positions.build(encoding), attentions.build(variant), drop)
  for core in (TPU, GPU):
    name = core.partition("(")[0]
    assert refused(core, "cope") == (
      f"cope looks at whole rows of scores, and {name} never holds one; use"
      " model.core=dense"
    )
    assert f"{name} does not drop weights" in refused(core, "none", drop=True)
  assert refused(TPU, "tupe") is None
  assert "transformer_xl needs slice in each tile" in refused(GPU, "transformer_xl")
  xla = "cudnn(implementation='xla')"
  assert "t5 changes scores or outputs, and cudnn cannot" in refused(xla, "t5")
  assert "softcap is more than a softmax" in refused(xla, "none", "softcap")
  assert refused(xla, "rope", "gqa(2) + window(8)") is None


def test_a_table_beyond_a_gpu_s_shared_memory_is_refused_before_it_is_compiled():
  x_BLHK = jnp.ones((1, 64, H, 16))
  encoding = positions.build("music_transformer(max_distance=5000)")
  dims = dataclasses.replace(DIMS, K=16, L=64)
  position = bind(encoding, encoding.init(jax.random.key(0), dims), dims)
  at, core = coords.consecutive(1, 64), cores.build("pallas_gpu(interpret=False)")
  said = "with a table of 16 x 5000 numbers, 312 KiB, and a GPU's processor holds 227"
  with pytest.raises(ValueError, match=said):
    core(x_BLHK, x_BLHK, x_BLHK, at, at, position, variant=PLAIN)


def test_cudnn_off_a_gpu_raises_and_does_not_fall_back():
  x_BLHK = jnp.ones((1, 4, H, K))
  at, nothing = coords.consecutive(1, 4), bind(PositionalEncoding(), {}, None)
  with pytest.raises(ValueError, match="cudnn runs on NVIDIA GPUs and this is a CPU"):
    cores.build("cudnn")(x_BLHK, x_BLHK, x_BLHK, at, at, nothing, variant=PLAIN)


@pytest.mark.parametrize("E", [pytest.param(K // 2, marks=pytest.mark.slow), 2 * K])
def test_cudnn_serves_learned_scales_and_values_of_any_width(E):
  """The kernel takes one number as the scale, and values as wide as keys."""
  keys, at = jax.random.split(jax.random.key(0), 3), MODES["left_padded"]
  shapes = (B, L, H, K), (B, L, 2, K), (B, L, 2, E)
  qkv = [jax.random.normal(key, s) for key, s in zip(keys, shapes, strict=True)]
  position = bind(PositionalEncoding(), {}, DIMS)

  def loss(core, qkv, scale):
    out = cores.build(core)(*qkv, at, at, position, scale)
    return jnp.sum(jnp.sin(out)), out

  run = jax.value_and_grad(loss, (1, 2), has_aux=True)
  tested = jax.jit(functools.partial(run, "cudnn(implementation='xla')"))
  for scale in (jnp.array([0.3, 0.7, 1.1, 2.0]), jnp.array(0.7)):
    want = evaluate(functools.partial(run, "dense"), qkv, scale)
    close(tested(qkv, scale), want)


def test_kernels_serve_loops_that_have_nothing_but_their_carry():
  def loop(x):
    return jax.lax.fori_loop(0, 3, lambda _, carry: carry + x, x)

  def reads_by_step(x):
    return jax.lax.scan(lambda carry, y: (carry + y, None), x[0], x)[0]

  def writes_by_step(x):
    return jax.lax.scan(lambda carry, _: (carry + x, carry), x, length=3)[1]

  def scan_of(function):
    (eqn,) = jax.make_jaxpr(function)(jnp.ones(3)).eqns[-1:]
    assert eqn.primitive.name == "scan"
    return eqn

  primitives.check(scan_of(loop))
  for function in (reads_by_step, writes_by_step):
    with pytest.raises(primitives.CannotLower, match="scan"):
      primitives.check(scan_of(function))
