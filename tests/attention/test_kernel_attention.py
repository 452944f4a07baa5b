"""Kernel attention: its definition, its estimates, and its core of linear time."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_recorded import close

from transformer_jax.attention import BoundVariant, attentions
from transformer_jax.attention.cores import cores
from transformer_jax.attention.variants import performer
from transformer_jax.axes import Dims
from transformer_jax.models import Architecture, Transformer, empty_cache
from transformer_jax.numpy_interpreter import evaluate, trace
from transformer_jax.positions import bind, coords, positions

NOTHING = bind(positions.build("none"), {}, None)
LINEAR = attentions.build("linear")
CAUSAL = coords.consecutive(1, 23)
PACKED = coords.packed(jnp.array([[0] * 2 + [3] * 7 + [1] * 14, [1] * 10 + [2] * 13]))
SHUFFLE = np.random.default_rng(0).permutation(23)
EACH = lambda at: jax.tree.map(lambda x: jnp.broadcast_to(x, (2, x.shape[1])), at)
KINDS = {
  "causal": CAUSAL,
  "both ways": CAUSAL.bidirectional(),
  "prefix": CAUSAL.prefix(jnp.array([[5], [9]])),
  "packed": PACKED,
  "packed, both ways": PACKED.bidirectional(),
  "padded": coords.padded(jnp.arange(23) >= jnp.array([[6], [0]])),
  "out of order": jax.tree.map(lambda x: x[:, SHUFFLE], PACKED),
  "one that sees nothing": CAUSAL.replace(
    horizon_BL=CAUSAL.horizon_BL.at[0, 4].set(-1)
  ),
}


def det(shape, s):
  return np.sin(0.37 * np.arange(np.prod(shape)) + s).reshape(shape)


def attend(core, variant, q, k, v, q_at, k_at):
  core, bound = cores.build(core), BoundVariant(variant)
  return core(q, k, v, q_at, k_at, NOTHING, None, bound)


def gradients(core, variant, q, k, v, q_at, k_at):
  """Returns outputs and the gradients for q, k and v of some function of them."""

  def loss(q, k, v):
    out_BLHE = attend(core, variant, q, k, v, q_at, k_at)
    return jnp.sum(jnp.sin(out_BLHE) * jnp.arange(v.shape[-1])), out_BLHE

  grads, out_BLHE = jax.grad(loss, (0, 1, 2), has_aux=True)(q, k, v)
  return out_BLHE, grads


attended = jax.jit(gradients, static_argnums=(0, 1))
outputs = jax.jit(attend, static_argnums=(0, 1))


def in_numpy(core, variant, *given):
  """Returns `attended`, interpreted."""
  return traced(core, variant, jax.tree.structure(given), *shapes_of(given))(*given)


def shapes_of(given):
  return map(jax.typeof, jax.tree.leaves(given))


@functools.cache
def traced(core, variant, tree, *shapes):
  run = functools.partial(gradients, core, variant)
  return trace(run, *jax.tree.unflatten(tree, shapes))


@functools.cache
def inputs(B=2, L=23, M=23):
  """Returns q_BLHK, k_BMGK and v_BMGE: keys are shared by two heads."""
  random = np.random.default_rng(0)
  draw = lambda *shape: jnp.asarray(random.normal(size=shape), jnp.float32)
  return draw(B, L, 4, 8), draw(B, M, 2, 8), draw(B, M, 2, 6)


def test_linear_numbers():
  """Weights are products of elu + 1; running sums give the same row by row."""
  q, k, v = det((4, 3), 0.1), det((4, 3), 0.6), det((4, 3), 1.1)
  phi = lambda x: np.where(x > 0, x + 1, np.exp(np.minimum(x, 0)))
  product_KE, norm_K, want = np.zeros((3, 3)), np.zeros(3), []
  for i in range(4):
    product_KE += np.outer(phi(k[i]), v[i])
    norm_K += phi(k[i])
    want.append(phi(q[i]) @ product_KE / (phi(q[i]) @ norm_K))
  close(want[3], [0.482636, 0.345804, 0.162169])
  given = [jnp.asarray(x, jnp.float32)[None, :, None] for x in (q, k, v)]
  at = coords.consecutive(1, 4)
  for core in ("dense", "linear(block=3)"):
    close(outputs(core, LINEAR, *given, at, at)[0, :, 0], want)


SLOW = pytest.mark.slow
ANOTHER = pytest.param("performer(24, seed=5, orthogonal=False)", marks=SLOW)
SPECS = ["linear", "performer", ANOTHER]


@pytest.mark.parametrize("spec", SPECS)
def test_linear_time_gives_the_definition_and_its_gradients(spec):
  variant = attentions.build(spec)
  for kind, at in KINDS.items():
    at = EACH(at)  # compiled once
    want, want_grads = in_numpy("dense", variant, *inputs(), at, at)
    got, grads = attended("linear(block=8)", variant, *inputs(), at, at)
    np.testing.assert_allclose(got, want, rtol=2e-6, atol=3e-6, err_msg=kind)
    for d, want_d in zip(grads, want_grads, strict=True):
      scale = float(np.max(np.abs(want_d)))
      np.testing.assert_allclose(d, want_d, atol=1e-5 * scale, err_msg=kind)


@pytest.mark.parametrize("block", [1, 5, pytest.param(46, marks=pytest.mark.slow), 200])
def test_any_block_gives_the_same(block):
  given = LINEAR, *inputs(), PACKED, CAUSAL.replace(segment_BL=PACKED.segment_BL)
  close(outputs(f"linear(block={block})", *given), outputs("dense", *given), atol=3e-6)


def test_texts_of_different_lengths_and_queries_in_a_cache():
  q, k, v = inputs(M=31)
  source = coords.padded(jnp.arange(31) < jnp.array([[31], [12]])).bidirectional()
  empty = coords.absent(1, 8)
  cache = jax.tree.map(lambda *x: jnp.concatenate(x, 1), CAUSAL, empty)
  for q_at, k_at in (
    (CAUSAL.bidirectional(), source),
    (coords.consecutive(1, 23, start=8), coords.consecutive(1, 31)),
    (CAUSAL, cache),
  ):
    given = LINEAR, q, k, v, EACH(q_at), EACH(k_at)
    want, grads = in_numpy("dense", *given)
    got, got_grads = attended("linear(block=8)", *given)
    close(got, want, atol=3e-6)
    jax.tree.map(functools.partial(close, atol=2e-5), got_grads, grads)


def test_what_is_not_seen_changes_not_one_bit():
  """Other texts and later tokens, however large."""
  for spec in ("linear", "performer"):
    variant = attentions.build(spec)
    q, k, v = inputs()
    got, _ = attended("linear(block=8)", variant, q, k, v, PACKED, PACKED)
    other = (jnp.arange(23) >= 15)[:, None, None] | (PACKED.segment_BL != 1)[
      ..., None, None
    ]
    k, v = (jnp.where(other, 30 * x, x) for x in (k, v))
    new, grads = attended("linear(block=8)", variant, q, k, v, PACKED, PACKED)
    first = (PACKED.segment_BL == 1) & (jnp.arange(23) < 15)
    np.testing.assert_array_equal(new[first], got[first])
    assert np.any(new != got) and all(np.all(np.isfinite(d)) for d in grads)


def bytes_needed(core, L):
  """Returns temporary bytes of the gradient."""
  x, at = jax.ShapeDtypeStruct((1, L, 4, 16), jnp.float32), coords.consecutive(1, L)
  loss = lambda q, k, v: jnp.sum(attend(core, LINEAR, q, k, v, at, at) ** 2)
  compiled = jax.jit(jax.grad(loss, (0, 1, 2))).lower(x, x, x).compile()
  return compiled.memory_analysis().temp_size_in_bytes


def test_memory_is_linear_in_the_length():
  short, long = (bytes_needed("linear", L) for L in (1024, 4096))
  assert long < 4.4 * short, (short, long)
  assert 4 * short < bytes_needed("dense", 1024)


# FAVOR+: estimates of exp(q k).


def test_products_of_features_have_the_mean_of_the_exponential():
  """E exp(w q - q^2 / 2) exp(w k - k^2 / 2) = exp(q k), integrated over a normal w."""
  w, weight = np.polynomial.hermite_e.hermegauss(60)
  for q, k in ((0.3, -0.7), (1.2, 0.8)):
    one = lambda x: performer.exponents(jnp.full((1, 1, 1, 1), x), w[:, None])
    products = np.exp(np.asarray(one(q) + one(k), np.float64)).ravel()
    close(products @ weight / weight.sum(), np.exp(q * k), atol=2e-5)


@pytest.mark.parametrize(("orthogonal", "spread"), [(True, 0.598), (False, 0.694)])
def test_random_features_are_unbiased(orthogonal, spread):
  """16 features of 8 numbers, whose product is exp(q k) = 1.397451 on average.

  Orthogonal directions of which one entry never changes its sign would give 1.02.
  """
  q, k = det((8,), 0.1) / 3, det((8,), 0.9) / 3
  random, found = np.random.default_rng(0), []
  for _ in range(5000):
    w_NK = performer.draw(random, 16, 8, orthogonal)
    found.append(np.mean(np.exp(w_NK @ (q + k) - (q @ q + k @ k) / 2)))
  error = spread / len(found) ** 0.5
  assert abs(np.mean(found) - 1.397451) < 4 * error
  assert abs(np.std(found) / spread - 1) < 0.15


def test_orthogonal_directions_are_at_right_angles_and_as_long_as_normal_ones():
  w_NK = performer.directions(1, 30, 8, True)
  angles = w_NK @ w_NK.T
  for start in (0, 8, 16, 24):
    block = angles[start : start + 8, start : start + 8]
    close(block - np.diag(np.diag(block)), 0.0, atol=2e-5)
  many = performer.directions(2, 4096, 8, True)
  squares = np.sum(many**2, axis=1)
  assert abs(squares.mean() - 8) < 0.3 and abs(squares.var() - 16) < 2


def test_more_features_come_closer_to_the_exponential_and_to_softmax():
  """The error falls as one over the root of their number."""
  random = np.random.default_rng(1)
  q, k = random.normal(size=(2, 500, 8)) / 4
  log_norm = np.sum((q + k) ** 2, 1) / 2  # exp(q k) and what makes features unbiased

  def error(count, orthogonal):
    w_NK = performer.draw(random, count, 8, orthogonal)
    ratio = np.mean(np.exp((q + k) @ w_NK.T - log_norm[:, None]), 1)
    return np.mean((ratio - 1) ** 2)

  few, many = (np.mean([error(n, True) for _ in range(20)]) for n in (32, 512))
  assert 3.2 < (few / many) ** 0.5 < 4.8
  assert few < np.mean([error(32, False) for _ in range(20)])
  q, k, v = (x / 2 for x in inputs())
  run = lambda spec: outputs("dense", attentions.build(spec), q, k, v, CAUSAL, CAUSAL)
  apart = run("performer(2048)") - run("multihead")
  assert np.mean(apart**2) ** 0.5 < 0.015 < 0.1 < np.mean(run("multihead") ** 2) ** 0.5


def test_scales_of_heads_reach_the_features():
  """exp(q k s) is what features estimate; a scale of 0 weighs all keys alike."""
  q, k, v = inputs()
  variant = attentions.build("performer + scale(learned=True)")
  bound = BoundVariant(variant, {"log_scale_H": jnp.zeros(4)})
  core = cores.build("dense")
  scale_H = jnp.array([0.0, 0.1, 0.2, 0.0])
  run = lambda *qkv: core(*qkv, CAUSAL, CAUSAL, NOTHING, scale_H, bound)
  got = evaluate(run, q, k, v)
  mean = np.cumsum(np.repeat(v, 2, axis=2), 1) / np.arange(1, 24)[:, None, None]
  close(got[:, :, [0, 3]], mean[:, :, [0, 3]], atol=3e-6)
  assert np.abs(got - mean)[:, :, 1:3].max() > 0.01


def test_long_vectors_neither_overflow_nor_vanish():
  """Keys along a direction itself, where a feature is as large as it can be."""
  variant = attentions.build("performer(256)")
  q, k, v = (jnp.zeros((1, 5, 1, 128)) for _ in range(3))
  w_NK = performer.directions(0, 256, 128, True)
  k = k.at[0, :, 0].set(w_NK[:5] * 128**0.25)
  q, v = k, v.at[0, :, 0].set(np.eye(5, 128))
  at = coords.consecutive(1, 5).bidirectional()
  for core in ("dense", "linear(block=4)"):
    out, grads = in_numpy(core, variant, q, k, v, at, at)
    close(np.sum(out, -1), 1.0, atol=1e-5)
    assert np.all(np.isfinite(out)) and all(np.all(np.isfinite(d)) for d in grads)


def test_what_moves_from_keys_to_queries_changes_no_weight(monkeypatch):
  """Weights are the shares of products, in which what moves cancels."""
  q_BLHK, k_BMHK = jax.random.normal(jax.random.key(0), (2, 1, 6, 2, 8))
  found = []
  for highest in (1e3, 2.0):
    monkeypatch.setattr(performer, "HIGHEST", highest)
    q, k = attentions.build("performer(16)").features({}, q_BLHK, k_BMHK, 0.3)
    product_BHLM = jnp.einsum("BLHN,BMHN->BHLM", q, k)
    found.append(product_BHLM / product_BHLM.sum(-1, keepdims=True))
  close(found[1], found[0], atol=1e-6)
  assert np.ptp(found[0]) > 0.05


# A whole model, decoding, and what is refused.


@pytest.mark.parametrize(
  "spec", ["linear + mqa", pytest.param("performer(32)", marks=SLOW)]
)
def test_decoding_on_the_cache_equals_the_whole_text(spec):
  dims = Dims(V=16, D=16, H=2, F=16, L=9)
  position = positions.build("rope" if "performer" in spec else "sinusoidal")
  parts = position, cores.build("linear(block=4)"), attentions.build(spec)
  model = Transformer(Architecture(dims, *parts, decoders=2))
  token_BL, at = jnp.arange(18).reshape(2, 9) % 7, coords.consecutive(1, 9)
  shapes = jax.eval_shape(model.init, jax.random.key(0), token_BL)["params"]
  random = np.random.default_rng(0)
  params = jax.tree.map(lambda x: jnp.float32(random.normal(size=x.shape)), shapes)
  whole = jax.jit(lambda params: model.apply({"params": params}, token_BL))(params)

  @jax.jit
  def step(cache, token, at):
    return model.apply({"params": params}, token, at, cache=cache, method="decode")

  cache = empty_cache(model.arch, 2, 12)
  for n in range(9):
    one = jax.tree.map(lambda x, n=n: x[:, n : n + 1], at)
    logits, cache = step(cache, token_BL[:, n : n + 1], one)
    close(logits[:, 0], whole[:, n], atol=2e-5)


@pytest.mark.parametrize(
  ("core", "spec", "position", "says"),
  [
    ("dense", "linear", "alibi", "linear has no softmax whose scores alibi could"),
    ("dense", "performer", "t5", "performer has no softmax whose scores t5 could"),
    ("linear", "performer", "xpos", "and xpos turns vectors by where the middle"),
    ("dense", "performer", "every(2, none, pope)", "later tokens would change earlier"),
    ("dense", "performer", "randomized(grape_m)", "later tokens would change earlier"),
    (
      "linear",
      "linear + gqa(2)",
      "rope",
      "and rope turns vectors to compare",
    ),
    (
      "linear",
      "multihead",
      "none",
      "features of keys, and multihead has none",
    ),
    (
      "linear",
      "linear + window(3)",
      "none",
      "a part of linear . window changes",
    ),
    ("linear", "performer + softcap", "none", "a part of performer . softcap changes"),
    ("blockwise", "linear", "none", "linear looks at whole rows of scores"),
  ],
)
def test_what_cannot_be_served_is_one_sentence(core, spec, position, says):
  encoding, variant = positions.build(position), attentions.build(spec)
  with pytest.raises(ValueError, match=says):
    at = coords.consecutive(1, 23)
    bound = bind(encoding, {}, Dims(V=8, D=32, H=4, F=8, L=23))
    cores.build(core)(*inputs(), at, at, bound, None, BoundVariant(variant))
  assert cores.build("linear").refusal(NOTHING.encoding, variant, dropout=True)


def test_no_other_core_takes_products_of_features_for_scores():
  serves = lambda core: not cores.build(core).refusal(NOTHING.encoding, LINEAR)
  assert {name for name in cores if serves(name)} == {"auto", "dense", "linear"}


def test_encodings_that_a_kernel_serves():
  serves = lambda spec, name: not attentions.build(spec).refusal(positions.build(name))
  assert serves("performer", "rope") and not serves("linear", "rope")
  for name in ("none", "learned", "sinusoidal", "randomized(sinusoidal)"):
    assert serves("linear", name) and serves("performer", name)
  for name in ("shaw", "randomized(alibi)", "every(2, none, t5)", "fire", "cope"):
    assert not serves("linear", name) and not serves("performer", name)
