"""Variants that change how tokens become queries, keys and values, or what heads found.

Each is compared with loops written from its paper's words, in float64, and with its
central differences.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from interpreted import interpreted
from oracles.attention_layers import differential, heads, sigmoid
from oracles.token_layers import LOOPS
from representatives import representatives
from test_positions import with_ids

from transformer_jax import numpy_interpreter
from transformer_jax.attention import attentions
from transformer_jax.attention.cores import cores
from transformer_jax.attention.variants.gqa import pooled
from transformer_jax.axes import Dims
from transformer_jax.models import Architecture, empty_cache
from transformer_jax.models.transformer import Attention
from transformer_jax.positions import bind, coords, positions
from transformer_jax.positions.base import HOOKS

SLOW = pytest.mark.slow
B, L = 2, 5
DIMS = Dims(V=8, D=12, H=4, F=8, L=L, K=3)
CAUSAL = coords.consecutive(1, L)


def layer(spec, position="none", dims=DIMS, n=0, core="dense"):
  parts = positions.build(position), cores.build(core), attentions.build(spec)
  arch = Architecture(dims, *parts, decoders=1)
  return Attention(arch, *arch.layer("decoder", n))


def drawn(module, dims=DIMS, seed=0):
  """Returns random float64 parameters in the shapes of the layer's own."""
  random = np.random.default_rng(seed)
  x = jnp.zeros((B, L, dims.D))
  shapes = jax.eval_shape(module.init, jax.random.key(0), x, CAUSAL)
  draw = lambda x: 0.7 * random.normal(size=x.shape)
  return jax.tree.map(draw, dict(shapes.get("params", {})))


def tokens(dims=DIMS, seed=1):
  return np.random.default_rng(seed).normal(size=(B, L, dims.D))


@functools.partial(interpreted, statics=1)
def apply(module, w, x, at):
  return module.apply({"params": w}, x, at)[0]


def close(got, want, atol=3e-6):
  """Compares outputs of order one, in float32, with float64 loops."""
  np.testing.assert_allclose(got, want, atol=atol, rtol=1e-5)


def count(spec, dims):
  """Returns how many parameters a layer has."""
  module = layer(spec, dims=dims)
  init = functools.partial(module.init, jax.random.key(0))
  shapes = jax.eval_shape(init, jnp.zeros((1, 2, dims.D)), coords.consecutive(1, 2))
  return sum(x.size for x in jax.tree.leaves(shapes))


WIDE = dict.fromkeys(  # their heads have an even width
  ("differential_v2", "differential_v2(1)"), dataclasses.replace(DIMS, K=4)
)
SMALL = {
  "value_gain_HE",
  "head_scale_H",
  "energy_shift_HK",
  "gate_shift_H",
  "gate_shift_HE",
}
SMALL |= {f"{which}_{of}_K" for which in ("first", "second") for of in ("query", "key")}


@pytest.mark.parametrize("spec", LOOPS)
def test_values_and_gradients_are_those_of_the_papers_words(spec):
  module, x, g = layer(spec, dims=WIDE.get(spec, DIMS)), tokens(), tokens(seed=2)
  w = drawn(module)

  def loss(w, x):
    return jnp.sum(module.apply({"params": w}, x, CAUSAL)[0] * g)

  def loops(w, x):
    return sum(np.sum(LOOPS[spec](w, x[b]) * g[b]) for b in range(B))

  value = lambda w, x: (loss(w, x), module.apply({"params": w}, x, CAUSAL)[0])
  run = jax.value_and_grad(value, (0, 1), has_aux=True)
  (_, out), (d_w, d_x) = numpy_interpreter.evaluate(
    run, *jax.tree.map(np.float32, (w, x))
  )
  close(out, np.stack([LOOPS[spec](w, x[b]) for b in range(B)]))

  random = np.random.default_rng(3)
  for group in ({*w} - SMALL, {*w} & SMALL, {"x"}):  # each in a direction of its own
    along = {n: random.normal(size=(w | {"x": x})[n].shape) for n in sorted(group)}
    moved = lambda step, along=along: loops(
      w | {n: w[n] + step * a for n, a in along.items() if n != "x"},
      x + step * along.get("x", 0),
    )
    want = (moved(1e-5) - moved(-1e-5)) / 2e-5
    got = sum(np.sum(np.asarray((d_w | {"x": d_x})[n]) * a) for n, a in along.items())
    np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-4, err_msg=f"{group}")


# Numbers that other people's programs and other derivations gave.


def det(shape, s):
  """Returns sin(0.37 n + s), n = 0, 1, ..., in the order of rows."""
  return np.sin(0.37 * np.arange(np.prod(shape)) + s).reshape(shape)


STATE, SOURCE = det((2,), 0.4), det((3, 2), 0.8)


def test_additive_weights():
  q_LK, k_MK = STATE[None] @ det((2, 2), 0.1), SOURCE @ det((2, 2), 0.5)
  params = {"energy_HK": det((2,), 0.9)}  # of one head
  s_LM = attentions.build("additive(bias=False)").dot(params, q_LK, k_MK, 9.0)
  close(jax.nn.softmax(s_LM)[0], [0.339451, 0.345886, 0.314664], atol=1e-6)


@pytest.mark.parametrize(
  "spec,want",
  [
    ("multiplicative(general=False)", [0.347557, 0.393985, 0.258457]),
    ("multiplicative", [0.34507, 0.411339, 0.243591]),
  ],
)
def test_multiplicative_weights(spec, want):
  variant, dims = attentions.build(spec), Dims(V=2, D=2, H=1, F=2, L=3)
  projections, w = variant.projections().fit(dims), {"query_HKK": det((1, 2, 2), 0.1)}
  q_BLHK = projections.query(w, STATE[None, None])
  k_BMHK, _ = projections.read(w, projections.memory(w, SOURCE[None]))
  s_M = variant.scale({}, 2) * (q_BLHK[0, 0, 0] @ k_BMHK[0, :, 0].T)
  close(jax.nn.softmax(s_M), want, atol=1e-6)


def test_unparameterised_values():
  dims, x = Dims(V=2, D=2, H=1, F=2, L=3), det((1, 3, 2), 0.2)
  module = layer("unparameterised(project=False) + scale(0)", dims=dims)
  got = apply(module, {}, x, coords.consecutive(1, 3).bidirectional())
  want = [[0.717461, 0.825868], [0.789144, 0.862381], [0.800203, 0.866854]]
  close(got[0], want, atol=1e-6)


def test_lambda_starts_higher_in_deeper_layers():
  for n, want in ((0, 0.2), (1, 0.355509), (11, 0.77787)):
    assert attentions.build("differential").layer(n).start == pytest.approx(
      want, abs=1e-6
    )
    fixed = attentions.build("differential(start=0.8)")
    assert fixed.layer(n) == fixed
  x = tokens()[:1]
  module = layer("differential", n=1)
  w = drawn(module)
  close(apply(module, w, x, CAUSAL)[0], differential(w, x[0], 0.8 - 0.6 * np.exp(-0.3)))


BASE = Dims(V=8, D=512, H=8, F=8, L=8)
DEEPSEEK = Dims(V=8, D=5120, H=128, F=8, L=8, K=128)


@pytest.mark.parametrize(
  "spec,dims,want",
  [
    ("multihead", BASE, 1_048_576),
    ("multihead(bias=True)", BASE, 1_048_576 + 4 * 512),
    ("gqa(8)", BASE, 1_048_576),
    ("gqa(2)", BASE, 655_360),
    ("mqa", BASE, 589_824),
    ("differential", BASE, 1_048_576 + 4 * 64),
    ("gated", BASE, 1_048_576 + 512 * 512),
    ("gated(headwise=True)", BASE, 1_048_576 + 512 * 8),
    ("additive", BASE, 1_048_576 + 2 * 512),
    ("unparameterised", BASE, 512 * 512),
    ("unparameterised(project=False)", BASE, 0),
    ("multiplicative", BASE, 8 * 64 * 64 + 2 * 512 * 512),
    ("multiplicative(general=False, project=False)", BASE, 0),
    ("concat", BASE, 2 * 8 * 64 * 64 + 512 + 2 * 512 * 512),
    (
      "mla(latent=512, part=64, queries=1536)",
      DEEPSEEK,
      5120 * (1536 + 512 + 64)  # down
      + 1536 * 128 * (128 + 64)  # queries
      + 512 * 128 * 2 * 128  # keys and values
      + 128 * 128 * 5120  # out
      + (1536 + 512),  # gains of the norms
    ),
  ],
)
def test_parameter_counts(spec, dims, want):
  assert count(spec, dims) == want


@pytest.mark.parametrize(
  "spec,dims,want",
  [
    ("multihead", BASE, 2 * 512),
    ("gqa(2)", BASE, 2 * 2 * 64),
    ("mqa", BASE, 2 * 64),
    ("mla(latent=512, part=64)", DEEPSEEK, 512 + 64),
    ("mla(latent=512, part=0)", DEEPSEEK, 512),
    ("differential", BASE, 2 * 512),
    ("unparameterised", BASE, 512),
    ("concat", BASE, 512),
  ],
)
def test_what_a_cache_keeps_of_a_token(spec, dims, want):
  (cache,) = empty_cache(layer(spec, "rope", dims).arch, 1, 1)
  assert sum(x.size for x in jax.tree.leaves(cache.kept)) == want


@pytest.mark.parametrize(
  "spec,position,turned",
  [
    ("multihead", "rope", True),
    ("gqa(2)", "rope", True),
    ("multihead", "xpos", False),  # turns keys otherwise than queries
    ("multihead", "rope_dynamic(original=2)", False),  # again in a longer text
    ("multiplicative", "rope", False),  # keeps tokens
  ],
)
def test_a_cache_keeps_keys_turned_where_nothing_turns_them_later(
  spec, position, turned
):
  dims = Dims(V=8, D=32, H=4, F=8, L=16)
  module = layer(spec, position, dims)
  x = np.random.default_rng(3).normal(size=(1, 2, 32)).astype(np.float32)
  (cache,) = empty_cache(module.arch, 1, 5)
  late, early = (coords.consecutive(1, 2, start=start) for start in (7, 0))
  init = functools.partial(module.init, jax.random.key(0))
  w = numpy_interpreter.evaluate(init, x, late)
  attend = lambda w, x, at, cache: module.apply(w, x, at, cache=cache)[1].kept
  run = numpy_interpreter.trace(attend, w, x, late, cache)
  kept, still = run(w, x, late, cache), run(w, x, early, cache)
  assert all(a.shape[-2] == 5 for a in kept.values()), "tokens are before features"
  same = [np.array_equal(kept[name], still[name]) for name in sorted(kept)]
  assert same[0] is not turned, "keys of other positions"
  assert all(same[1:]), "values"


# Attention that is another attention.


def as_groups(w):
  return {n.replace("_DHK", "_DGK") if n[0] in "kv" else n: x for n, x in w.items()}


def test_groups_equal_heads_whose_keys_and_values_repeat():
  few, many, x = layer("gqa(2)", "rope", EVEN), layer("multihead", "rope", EVEN), None
  w, x = drawn(few, EVEN), tokens(EVEN)
  repeat = lambda name: np.repeat(w[name], 2, axis=1)
  rest = {name: w[name] for name in ("query_DHK", "out_HKD")}
  repeated = rest | {f"{n}_DHK": repeat(f"{n}_DGK") for n in ("key", "value")}
  want = apply(many, repeated, x, CAUSAL)
  close(apply(few, w, x, CAUSAL), want)
  close(apply(layer("gqa(4)", "rope", EVEN), as_groups(repeated), x, CAUSAL), want)
  assert set(pooled(repeated, 2)) == set(w)
  for name, pool in pooled(repeated, 2).items():
    np.testing.assert_allclose(pool, w[name], rtol=1e-6)


def test_pooled_heads_are_the_means_of_their_groups():
  w = drawn(layer("multihead(bias=True)"))
  got = pooled(w, 2)
  close(got["key_DGK"][:, 1], (w["key_DHK"][:, 2] + w["key_DHK"][:, 3]) / 2)
  close(got["value_shift_GK"][0], (w["value_shift_HK"][0] + w["value_shift_HK"][1]) / 2)
  assert got["query_DHK"] is w["query_DHK"] and got["out_shift_D"] is w["out_shift_D"]


def test_without_lambda_a_pair_is_one_head_with_wide_values():
  module, x = layer("differential(start=0, norm=False)"), tokens()
  w = drawn(module)
  w |= {name: np.zeros(3) for name in w if name.endswith("_K")}
  found = heads(
    {
      "query_DHK": w["query_DHK"][:, ::2],
      "key_DHK": w["key_DHK"][:, ::2],
      "value_DHK": w["value_DGE"],
    },
    x[0],
    H=2,
  )
  want = np.concatenate(found, axis=-1) @ w["out_HKD"].reshape(-1, 12)
  close(apply(module, w, x, CAUSAL)[0], want)


@pytest.mark.parametrize("headwise", [True, False])
def test_open_gates_are_no_gates(headwise):
  module, x = layer(f"gated(headwise={headwise}, start=99)"), tokens()
  w = drawn(module)
  for name in w:
    w[name] = np.full_like(w[name], 99.0) if "gate_shift" in name else w[name]
  plain = {name: w[name] for name in w if not name.startswith("gate")}
  close(apply(module, w, x, CAUSAL), apply(layer("multihead"), plain, x, CAUSAL))


def test_gates_multiply_what_a_pair_found_in_any_order():
  """The gate stands between the norm of a pair and the output projection."""
  x, specs = tokens(), ("gated + differential", "differential + gated")
  w = drawn(layer(specs[0]))
  plain = {name: w[name] for name in w if not name.startswith("gate")}
  no_out = plain | {"out_HKD": np.eye(12).reshape(4, 3, 12)}
  gate = sigmoid(np.einsum("bld,dhk->blhk", x, w["gate_DHE"])).reshape(B, L, -1)
  found = apply(layer("differential"), no_out, x, CAUSAL)
  want = (gate * found) @ w["out_HKD"].reshape(-1, 12)
  for spec in specs:
    close(apply(layer(spec), w, x, CAUSAL), want)


def test_luongs_dot_is_attention_without_parameters():
  bare = "multiplicative(general=False, project=False)"
  x = tokens()
  want = apply(layer("unparameterised(project=False) + scale(0)"), {}, x, CAUSAL)
  close(apply(layer(bare), {}, x, CAUSAL), want)


EVEN = Dims(V=8, D=16, H=4, F=8, L=L)


def test_latent_keys_need_not_be_made():
  """(W c)' q = c' (W' q): attention among latents, one key head for all queries."""
  module = layer("mla(latent=6, part=2, queries=5, value=3)", "rope", EVEN)
  w, x = drawn(module, EVEN), jnp.asarray(tokens(EVEN), jnp.float32)
  w, projections = jax.tree.map(jnp.float32, w), module.variant.projections()
  kept = projections.memory(w, x)
  assert {name: a.shape for name, a in kept.items()} == {
    "latent": (B, L, 6),
    "part": (B, L, 2),
  }
  q_still, q_part = jnp.split(projections.query(w, x), [4], axis=-1)
  q_BLHC = jnp.einsum("BLHK,CHK->BLHC", q_still, w["key_CHK"])
  position = bind(module.position, {}, EVEN)
  part_BM1P = kept["part"][:, :, None]
  q_part, part_BM1P = position.transform_qk(q_part, part_BM1P, CAUSAL, CAUSAL)
  q = jnp.concatenate([q_BLHC, q_part], -1)
  k = jnp.concatenate([kept["latent"][:, :, None], part_BM1P], -1)
  v_BM1C = kept["latent"][:, :, None]
  attended = q, k, v_BM1C, CAUSAL, CAUSAL, position, (4 + 2) ** -0.5
  o_BLHC = cores.build("dense")(*attended)
  o_BLHE = jnp.einsum("BLHC,CHE->BLHE", o_BLHC, w["value_CHE"])
  want = jnp.einsum("BLHE,HED->BLD", o_BLHE, w["out_HED"])
  close(apply(module, w, x, CAUSAL), want)


# What works together.


BUILT = {name: positions.build(name) for name in sorted(positions)}
FEW = representatives({n: {*filter(e.overrides, HOOKS)} for n, e in BUILT.items()})
JOINED = [
  "mla(part=16) + qk_norm + gated",
  pytest.param("mla(part=0)", marks=SLOW),
  pytest.param("differential + gated", marks=SLOW),
]


@pytest.mark.parametrize("spec", [*JOINED, pytest.param("additive", marks=SLOW)])
@pytest.mark.parametrize("names", [FEW, pytest.param({*positions}, marks=SLOW)])
def test_every_encoding_is_served_or_refused_with_advice(spec, names):
  """Traces a layer and its decoding; what is compiled is in other tests."""
  dims = Dims(V=8, D=32, H=4, F=8, L=16)
  at, x = with_ids(coords.consecutive(1, 3)), jnp.zeros((1, 3, 32))
  served = 0
  for name in sorted(positions):
    module = layer(spec, name, dims)
    reason = module.arch.core.refusal(module.position, module.variant)
    served += not reason
    if reason:
      assert module.position.name in reason and "; use " in reason, reason
    elif name in names:
      placed = module.position.assign_positions(None, at)
      (cache,) = empty_cache(module.arch, 1, 5)
      init = functools.partial(module.init_with_output, jax.random.key(0))
      (out, *_), _ = jax.eval_shape(init, x, placed, None, None, cache)
      assert out.shape == x.shape, name
  assert served >= len(positions) / 2, f"{spec} serves {served}"


def refusal(spec, encoding):
  return attentions.build(spec).refusal(positions.build(encoding))


def test_latent_attention_turns_a_part_of_queries_and_scales_none_or_all():
  for served in ("log_n(alibi)", "randomized(rope)", "every(4, none, rope)", "cope"):
    assert refusal("mla", served) is None
  for refused in ("log_n(rope)", "randomized(log_n(rope))"):
    assert "turns just a part of them; use mla(part=0)" in refusal("mla", refused)
    assert refusal("mla(part=0)", refused) is None
  assert "use mla(part=0, value=0)" in refusal("mla(part=0, value=5)", "shaw")


def test_what_takes_no_dot_product_refuses_what_turns_for_one():
  for spec in ("additive", "concat", "concat + window(8)"):
    for encoding in ("rope", "xpos"):
      assert f"{encoding} turns queries and keys" in refusal(spec, encoding)
    assert refusal(spec, "alibi") is refusal(spec, "shaw") is None


@pytest.mark.parametrize(
  "spec,says",
  [
    ("gqa(0)", "groups is 0"),
    ("mla(latent=0)", "latent is 0; write a whole number from 1"),
    ("mla(part=-1)", "part is -1"),
    ("differential(start=1)", "start is 1"),
    ("mla + gqa(2)", "both decide how queries and keys are made"),
    ("additive + scale(0)", "both decide the scale"),
    ("additive + concat", "both decide"),
  ],
)
def test_what_makes_no_sense_is_refused(spec, says):
  with pytest.raises(ValueError, match=says):
    attentions.build(spec)


def test_heads_must_fit_the_model():
  odd = Dims(V=8, D=9, H=3, F=8, L=4)
  with pytest.raises(ValueError, match="3 is odd; choose an even number"):
    count("differential", odd)
  with pytest.raises(ValueError, match="2 groups of keys do not divide 3 heads"):
    count("gqa(2)", odd)
  with pytest.raises(ValueError, match="3 heads of 2 features are not its 9"):
    count("unparameterised", Dims(V=8, D=9, H=3, F=8, L=4, K=2))


def test_additive_scores_need_no_array_of_all_features():
  """Memory of scores and gradients grows with L * M, not with L * M * K."""
  variant = attentions.build("additive")

  def bytes_of(K, L=256):
    x = jax.ShapeDtypeStruct((L, K), jnp.float32)
    params = {name: x.update(shape=(K,)) for name in ("energy_HK", "energy_shift_HK")}
    loss = lambda params, q, k: jnp.sum(jnp.sin(variant.dot(params, q, k, 1.0)))
    compiled = jax.jit(jax.grad(loss, (0, 1, 2))).lower(params, x, x).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  assert bytes_of(32) < 4 * 256 * 256 * 12
  assert bytes_of(32) < 1.5 * bytes_of(8)
