"""Blockwise attention: which tiles it visits and where their biases come from."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from transformer_jax.attention.cores import cores
from transformer_jax.attention.cores.blockwise import blocks, toeplitz
from transformer_jax.attention.cores.blockwise.block_mask import make_block_mask
from transformer_jax.attention.variants.bound_variant import PLAIN, BoundVariant
from transformer_jax.attention.variants.window import Window
from transformer_jax.numpy_interpreter import evaluate, trace
from transformer_jax.positions import PositionalEncoding, bind, coords

B, L, H, K, N = 2, 40, 2, 8, 12
BLOCK = 8
NOTHING = bind(PositionalEncoding(), {}, None)
# One text and group of heads after another, as on a CPU, or all at once.
FORMS = [f"blockwise({BLOCK}, at_once={at_once})" for at_once in (False, True)]
in_both_forms = pytest.mark.parametrize("core", FORMS)


@pytest.mark.parametrize("bq", [1, 7, 17])
def test_a_band_spreads_along_diagonals_and_its_gradient_sums_them(bq):
  bk = 5
  window_HN = np.random.default_rng(0).normal(size=(H, bq + bk - 1)).astype(np.float32)
  tile_HLM = np.random.default_rng(1).normal(size=(H, bq, bk)).astype(np.float32)
  want_tile, want_window = np.zeros_like(tile_HLM), np.zeros_like(window_HN)
  for i in range(bq):
    for j in range(bk):
      want_tile[:, i, j] = window_HN[:, bq - 1 - i + j]
      want_window[:, bq - 1 - i + j] += tile_HLM[:, i, j]
  np.testing.assert_array_equal(toeplitz.spread(jnp.asarray(window_HN), bq), want_tile)
  got = toeplitz.collapse(jnp.asarray(tile_HLM))
  np.testing.assert_allclose(got, want_window, atol=2e-6)


def test_the_plan_lists_the_tiles_in_which_something_is_seen():
  cut = blocks.Blocks(32, BLOCK)
  at = coords.consecutive(1, 32)
  plan, shift, key_count_BL = make_block_mask(PLAIN, at, at, cut, cut)
  assert plan.keys_count_q.tolist() == [[1, 2, 3, 4]]
  assert plan.queries_count_k.tolist() == [[4, 3, 2, 1]]
  assert plan.queries_of_kq[0, 2, :2].tolist() == [2, 3]
  assert shift == 0 and key_count_BL[0].tolist() == list(range(1, 33))
  plan, _, key_count_BL = make_block_mask(BoundVariant(Window(9)), at, at, cut, cut)
  assert plan.keys_count_q.tolist() == [[1, 2, 2, 2]]
  assert plan.keys_of_qk[0, 3, :2].tolist() == [2, 3]
  assert key_count_BL.max() == 9
  # The second text starts inside of a tile, and its band goes on there.
  packed = coords.packed(jnp.array([[1] * 12 + [2] * 20]))
  plan, shift, _ = make_block_mask(PLAIN, packed, packed, cut, cut)
  assert plan.keys_count_q.tolist() == [[1, 2, 2, 3]]
  assert shift == 0 and bool(plan.band_qk[0, 1, 1] & plan.band_qk[0, 3, 1])
  drawn = coords.randomized(jax.random.key(0), at, 99)
  assert not make_block_mask(PLAIN, drawn, drawn, cut, cut)[0].band_qk.any()


@in_both_forms
def test_several_groups_of_heads_come_back_in_their_order(core):
  q_BLHK = jax.random.normal(jax.random.key(0), (1, 16, 6, K))
  k_BMGK, v_BMGK = jax.random.normal(jax.random.key(1), (2, 1, 16, 2, K))
  cut = blocks.choose(16, 16, 6, 2, BLOCK)
  assert (cut.together, cut.H // cut.G) == (2, 3)
  at = coords.consecutive(1, 16)
  one = jax.jit(cores.build(core))
  found = one(q_BLHK, k_BMGK, v_BMGK, at, at, NOTHING)
  dense = lambda *qkv: cores.build("dense")(*qkv, at, at, NOTHING)
  want = evaluate(dense, q_BLHK, k_BMGK, v_BMGK)
  np.testing.assert_allclose(found, want, atol=1e-5)


@dataclasses.dataclass(frozen=True)
class PerDistance(PositionalEncoding):
  """A bias per distance, and nothing in a tile if `table_only`."""

  table_only: bool = False

  def bias(self, params, pos_L, pos_M):
    apart_LM = jnp.clip(pos_L[:, None] - pos_M[None, :], 0, N - 1)
    bias_LM = params["table_HN"][apart_LM]
    return bias_LM * jnp.nan if self.table_only and len(pos_M) > 1 else bias_LM


def attend(core, encoding, at, inputs):
  table_HN, q, k, v = inputs
  position = bind(encoding, {"table_HN": table_HN}, None)
  return cores.build(core)(q, k, v, at, at, position)


def inputs(seed=0):
  keys = jax.random.split(jax.random.key(seed), 2)
  return jax.random.normal(keys[0], (H, N)), *jax.random.normal(
    keys[1], (3, B, L, H, K)
  )


def gradient(core, encoding):
  """Returns `(at, inputs) -> (output, gradients)`."""

  def loss(inputs, at):
    out = attend(core, encoding, at, inputs)
    return jnp.sum(out**2), out

  def run(at, inputs):
    (_, out), grads = jax.value_and_grad(loss, has_aux=True)(inputs, at)
    return out, grads

  return run


def kinds():
  causal = jax.tree.map(
    lambda x: jnp.broadcast_to(x, (B, L)), coords.consecutive(1, L, 2**20)
  )
  real_BL = jnp.arange(L) >= jnp.array([[11], [0]])
  packed = coords.packed(jnp.array([[1] * 13 + [2] * 27, [1] * 30 + [2] * 10]))
  kinds = {"far": causal, "left_padded": coords.padded(real_BL), "packed": packed}
  drawn = coords.randomized(jax.random.key(0), causal, 2 * L)
  # Half of the texts has a gap: its tiles are mixed.
  gap = packed.replace(pos_BL=packed.pos_BL + 3 * (packed.order_BL > 9))
  return kinds, {"randomized": drawn, "gap": gap}


@in_both_forms
def test_biases_of_the_distance_alone_come_from_the_table_where_that_is_exact(core):
  banded, others = kinds()
  dense = trace(gradient("dense", PerDistance()), banded["far"], inputs())
  honest, table_only = (
    jax.jit(gradient(core, PerDistance(only))) for only in (False, True)
  )
  for kind, at in (banded | others).items():
    want = dense(at, inputs())
    runs = [honest, table_only] if kind in banded else [honest]
    for run in runs:
      compare = lambda got, want, kind=kind: np.testing.assert_allclose(
        got, want, atol=3e-5, rtol=2e-5, err_msg=kind
      )
      jax.tree.map(compare, run(at, inputs()), want)
    if kind in others:
      assert np.isnan(table_only(at, inputs())[0]).any(), kind


SLOWLY = pytest.param(False, marks=pytest.mark.slow)


@pytest.mark.parametrize("relative", [True, SLOWLY])
def test_biases_that_all_sequences_share_are_computed_once_for_all_tiles(relative):
  @dataclasses.dataclass(frozen=True)
  class Shared(PerDistance):
    pass

  Shared.relative = relative
  few = lambda seed: (inputs(seed)[0], *(x[:, :16] for x in inputs(seed)[1:]))
  causal = coords.consecutive(1, 16, 5)  # [H, 16, 16] is as much as the queries are
  drawn = coords.randomized(jax.random.key(0), causal, 99)
  core = f"blockwise(block={BLOCK})"
  tiled, dense = jax.jit(gradient(core, Shared())), gradient("dense", Shared())
  close = lambda a, b: np.testing.assert_allclose(a, b, atol=3e-5, rtol=2e-5)
  for at in (causal, drawn):
    jax.tree.map(close, tiled(at, few(0)), evaluate(dense, at, few(0)))
  table_only = jax.jit(gradient(core, Shared(table_only=True)))
  assert np.isfinite(table_only(causal, few(0))[0]).all() == relative


@in_both_forms
def test_tiles_in_which_nothing_is_seen_are_not_visited(core):
  """What is not a number there reaches no output and no gradient."""
  x_BLHK = inputs()[1]
  poison_BLHK = x_BLHK.at[:, 16:].set(jnp.nan)
  at = coords.consecutive(1, L)

  def found(core, q):
    early = lambda q: cores.build(core)(q, poison_BLHK, poison_BLHK, at, at, NOTHING)
    out, pull = jax.vjp(early, q)
    return out[:, :16], pull(jnp.where(jnp.isnan(out), 0.0, out))[0][:, :16]

  tiled = jax.jit(functools.partial(found, core))(x_BLHK)
  assert all(np.isfinite(x).all() for x in tiled)
  assert np.isnan(evaluate(functools.partial(found, "dense"), x_BLHK)[0]).any()


def test_seeds_do_not_make_the_choice_of_tiles_a_batch():
  core, at = f"blockwise(block={BLOCK})", kinds()[0]["packed"]
  run = gradient(core, PerDistance())
  seeds = jax.tree.map(lambda *x: jnp.stack(x), inputs(0), inputs(1))
  mapped = jax.jit(jax.vmap(run, (None, 0)))
  branches = lambda f, *args: f.lower(*args).as_text().count("stablehlo.case")
  assert branches(mapped, at, seeds) == branches(jax.jit(run), at, inputs()) > 0
  alone = trace(gradient("dense", PerDistance()), at, inputs())
  for n, (want, d_want) in enumerate(map(alone, [at] * 2, map(inputs, (0, 1)))):
    got, d_got = jax.tree.map(lambda x, n=n: x[n], mapped(at, seeds))
    np.testing.assert_allclose(got, want, atol=1e-5)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, atol=3e-5, rtol=2e-5),
      d_got,
      d_want,
    )


@pytest.mark.parametrize(("core", "depth"), [*zip(FORMS, (3, 2), strict=True)])
def test_at_once_texts_are_no_loop_and_tiles_of_queries_and_keys_are(core, depth):
  for at in (kinds()[0]["packed"], coords.consecutive(1, L)):
    jaxpr = jax.make_jaxpr(gradient(core, PerDistance()))(at, inputs())
    assert _loop_depth(jaxpr.jaxpr) == depth


def _loop_depth(jaxpr):
  """Returns how many loops lie in one another at most."""
  depths = [0]
  for eqn in jaxpr.eqns:
    inner = max(map(_loop_depth, jaxprs_in_params(eqn.params)), default=0)
    depths.append(inner + (eqn.primitive.name in ("scan", "while")))
  return max(depths)


def test_blocks_follow_the_shapes_and_an_order_for_them():
  sizes = lambda *shape: dataclasses.astuple(blocks.choose(*shape))
  assert sizes(128, 128, 8, 8, 0) == ((128, 128), (128, 128), 8, 8, 2)
  assert sizes(4096, 4096, 8, 8, 0) == ((4096, 256), (4096, 128), 8, 8, 1)
  assert sizes(4096, 4096, 8, 2, 0) == ((4096, 64), (4096, 128), 8, 2, 1)
  made_in_tiles = sizes(4096, 4096, 8, 8, 0, True)
  assert made_in_tiles == ((4096, 128), (4096, 128), 8, 8, 8)
  assert sizes(40, 40, 8, 2, 7) == ((40, 7), (40, 7), 8, 2, 2)
  assert sizes(1, 5000, 8, 1, 0)[:2] == ((1, 1), (5000, 128))
  at_once = sizes(4096, 1000, 8, 2, 0, True, True)
  assert at_once == ((4096, 512), (1000, 512), 8, 2, 2)


def test_gradients_of_bfloat16_are_bfloat16_and_no_loop_writes_into_such_an_array():
  """XLA on a CPU would convert all of the array to write a part of it."""
  table_HN, *qkv = inputs()
  given = [x.astype(jnp.bfloat16) for x in qkv]
  at = coords.consecutive(1, L)

  def gradients(core, q, k, v):
    total = lambda *qkv: jnp.sum(attend(core, PerDistance(), at, (table_HN, *qkv)))
    return jax.grad(total, (0, 1, 2))(q, k, v)

  run = jax.jit(functools.partial(gradients, f"blockwise(block={BLOCK})"))
  program = run.lower(*given)
  got = run(*given)
  exactly = functools.partial(gradients, "dense")
  want = evaluate(exactly, *(x.astype(jnp.float32) for x in given))
  for one, exact in zip(got, want, strict=True):
    assert one.dtype == jnp.bfloat16
    near = 0.02 * float(
      np.abs(exact).max()
    )  # eight bits of mantissa, in a few products
    np.testing.assert_allclose(one.astype(jnp.float32), exact, atol=near)
  writes = [x for x in program.as_text().splitlines() if "dynamic_update_slice" in x]
  assert writes and not any("bf16" in x for x in writes)
