"""Scales, norms and caps of scores: papers' formulas and other programs' numbers.

Formulas are NumPy loops in float64; recorded numbers are x-transformers'.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from interpreted import interpreted
from test_recorded import recorded

from transformer_jax.attention import BoundVariant, attentions
from transformer_jax.attention.cores import cores
from transformer_jax.axes import Dims, axes_of
from transformer_jax.models import Architecture
from transformer_jax.models.transformer import Attention
from transformer_jax.positions import bind, coords, positions
from transformer_jax.spec import SpecError

Z = np.array([1, 0.5, -0.2, -1])
L, H, K = 7, 3, 8
DIMS = Dims(V=8, D=H * K, H=H, F=8, L=L)
RANDOM = np.random.default_rng(0)
Q, KEYS, V = RANDOM.normal(size=(3, L, H, K))
CAUSAL = coords.consecutive(1, L)
NOTHING = bind(positions.build("none"), {}, DIMS)


def close(got, want, atol=2e-6):
  np.testing.assert_allclose(got, want, rtol=2e-6, atol=atol)


def start(spec, **given):
  """Returns a variant and its parameters as they start, or as they are given."""
  variant = attentions.build(spec)
  params = variant.init(jax.random.key(0), DIMS)
  given = {name: jnp.asarray(x, jnp.float32) for name, x in given.items()}
  assert given.keys() <= params.keys()
  return variant, params | given


def attend(variant, params, q_LHK, k_LHK, v_LHK, turned=NOTHING.encoding):
  """Returns what plain arrays attend to, as a model's layer does it, o_LHK."""
  return attended(variant, turned, params, q_LHK, k_LHK, v_LHK)


@functools.partial(interpreted, statics=2)
def attended(variant, turned, params, q_LHK, k_LHK, v_LHK):
  q, k, v = (jnp.asarray(x, jnp.float32)[None] for x in (q_LHK, k_LHK, v_LHK))
  position, scale = bind(turned, {}, DIMS), variant.scale(params, K)
  q, k = position.transform_qk(*variant.condition(params, q, k), CAUSAL, CAUSAL)
  q, k = variant.rotated(params, q, k)
  args = q, k, v, CAUSAL, CAUSAL, position, scale, BoundVariant(variant, params)
  return cores.build("dense")(*args)[0]


def softmax_rows(score):
  """Returns o_LHK for causal scores `score(h, i, j)`, by a loop over all of them."""
  out = np.zeros((L, H, K))
  for h in range(H):
    for i in range(L):
      w = np.exp([score(h, i, j) for j in range(i + 1)])
      out[i, h] = w @ V[: i + 1, h] / w.sum()
  return out


def check(started, score, atol=2e-6):
  close(attend(*started, Q, KEYS, V), softmax_rows(score), atol)


def dot(h, i, j):
  return Q[i, h] @ KEYS[j, h]


def unit(x):
  return x / np.sqrt(np.sum(x**2))


def cos(h, i, j):
  return unit(Q[i, h]) @ unit(KEYS[j, h])


def test_scales():
  check(start("scale(0)"), dot, atol=1e-5)
  check(start("scale(1)"), lambda *at: dot(*at) / K)
  check(start("scale(factor=0.3)"), lambda *at: 0.3 * dot(*at) / np.sqrt(K))
  check(start("scale(learned=True)"), lambda *at: dot(*at) / np.sqrt(K))
  log_H = np.array([-1.0, 0.0, 0.7])
  learned = start("scale(0, learned=True)", log_scale_H=log_H)
  check(learned, lambda h, *at: np.exp(log_H[h]) * dot(h, *at), atol=1e-5)


def test_a_scale_of_each_layer():
  variant = attentions.build("multihead + scale(0, 0.6, by_layer=True)")
  found = [variant.layer(n).scale({}, K) for n in range(4)]
  np.testing.assert_allclose(found, [0.6, 0.3, 0.2, 0.15])


def test_rms_norm_of_queries_and_keys():
  gain_q, gain_k = RANDOM.uniform(0.5, 2, (2, K))
  norm = lambda x: x / np.sqrt(np.mean(x**2) + 1e-6)
  given = {"query_gain_K": gain_q, "key_gain_K": gain_k}
  check(
    start("qk_norm", **given),
    lambda h, i, j: (gain_q * norm(Q[i, h])) @ (gain_k * norm(KEYS[j, h])) / np.sqrt(K),
    atol=1e-5,
  )
  norm = lambda x: (x - x.mean()) / np.sqrt(x.var() + 1e-6)
  check(
    start("qk_norm(centered=True)", **given),
    lambda h, i, j: (gain_q * norm(Q[i, h])) @ (gain_k * norm(KEYS[j, h])) / np.sqrt(K),
    atol=1e-5,
  )


@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_gains_of_queries_and_keys_may_be_those_of_a_head(offset):
  gains = RANDOM.uniform(0.5, 2, (2, len(Q[0]), K))
  given = {"query_gain_HK": gains[0] - offset, "key_gain_HK": gains[1] - offset}
  norm = lambda x: x / np.sqrt(np.mean(x**2) + 1e-6)
  check(
    start(f"qk_norm(per_head=True, offset={offset})", **given),
    lambda h, i, j: (
      (gains[0, h] * norm(Q[i, h])) @ (gains[1, h] * norm(KEYS[j, h])) / np.sqrt(K)
    ),
    atol=1e-5,
  )


def test_queries_alone_may_be_normalized():
  variant, params = start("qk_norm(keys=False)", query_gain_K=np.full(K, 2.0))
  assert list(params) == ["query_gain_K"]
  q, k = variant.condition(params, jnp.asarray(Q[None]), KEYS[None])
  want = 2 * Q / np.sqrt(np.mean(Q**2, axis=-1, keepdims=True) + 1e-6)
  np.testing.assert_allclose(q[0], want, rtol=1e-5)
  np.testing.assert_array_equal(k[0], KEYS)
  with pytest.raises(SpecError, match="leave one of them True"):
    attentions.build("qk_norm(queries=False, keys=False)")


def test_queries_are_normalized_before_they_are_turned():
  """Unequal gains of a rotated pair do not commute with the rotation."""
  gain = 1 + np.arange(K) / K
  variant, params = start("qk_norm", query_gain_K=gain, key_gain_K=gain)
  rope = positions.build("rope")

  def turn(x, n):
    angle = n * 10_000.0 ** (-np.arange(K // 2) / (K // 2))
    a, b = x[: K // 2], x[K // 2 :]
    c, s = np.cos(angle), np.sin(angle)
    return np.concatenate([a * c - b * s, b * c + a * s])

  norm = lambda x, n: turn(gain * x / np.sqrt(np.mean(x**2) + 1e-6), n)
  score = lambda h, i, j: norm(Q[i, h], i) @ norm(KEYS[j, h], j) / np.sqrt(K)
  got = attend(variant, params, Q, KEYS, V, rope)
  close(got, softmax_rows(score), atol=1e-5)


def test_queries_may_be_normalized_after_they_are_turned_and_without_gains():
  """YaRN makes features longer, and the norm takes their length away again."""
  yarn = positions.build("rope_yarn(factor=4, original=4, mscale=3)")
  unit = lambda x: x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + 1e-6)
  turn = lambda x: yarn.rotate({}, jnp.asarray(x, jnp.float32)[None], CAUSAL.pos_BL)[0]
  q, k = (unit(np.asarray(turn(x), np.float64)) for x in (Q, KEYS))
  variant, params = start("qk_norm(gain=False, after=True)")
  got, before = attend(variant, params, Q, KEYS, V, yarn), start("qk_norm(gain=False)")
  close(got, softmax_rows(lambda h, i, j: q[i, h] @ k[j, h] / np.sqrt(K)), atol=1e-5)
  assert params == before[1] == {}
  assert np.abs(attend(*before, Q, KEYS, V, yarn) - got).max() > 0.1
  with pytest.raises(ValueError, match="offset is added to gains; write gain=True"):
    attentions.build("qk_norm(gain=False, offset=1.0)")


def test_scores_of_normalized_vectors_are_bounded_by_their_gains():
  variant, params = start("qk_norm", query_gain_K=3 * np.ones(K))
  long = jnp.asarray(100 * Q, jnp.float32)[None]
  q, k = variant.condition(params, long, long)
  s_BHLM = BoundVariant(variant, params).dot(q, k, variant.scale(params, K))
  assert 3 * K**0.5 * 0.999 < np.max(s_BHLM) <= 3 * K**0.5 * 1.000001


def test_henry_factor():
  """log2(L^2 - L), 13.273213 for a length of 100, times cosines."""
  variant = attentions.build("qk_norm_l2")
  init = variant.init(jax.random.key(0), Dims(V=8, D=8, H=1, F=8, L=100))
  close(init["factor"], 13.273213)
  check(start("qk_norm_l2"), lambda *at: np.log2(L * L - L) * cos(*at), atol=1e-5)
  check(start("qk_norm_l2", factor=3.0), lambda *at: 3 * cos(*at), atol=1e-5)
  one = Dims(V=8, D=8, H=1, F=8, L=1)
  assert np.isfinite(variant.init(jax.random.key(0), one)["factor"])


def test_cosine_attention():
  check(start("cosine"), lambda *at: 10 * cos(*at), atol=1e-5)
  check(start("cosine(0.25, learned=False)"), lambda *at: 4 * cos(*at), atol=1e-5)
  tau_H = np.array([0.5, 0.1, 0.001])  # the last is below what is allowed
  given = start("cosine", log_tau_H=np.log(tau_H))
  score = lambda h, *at: cos(h, *at) / max(tau_H[h], 0.01)
  check(given, score, atol=5e-5)  # differences of scores near 100


def test_cosines_with_the_axes():
  """Weights softmax(10 z / |z|)."""
  z, axes = jnp.asarray(Z, jnp.float32)[None, None, None], 2 * jnp.eye(4)[None, :, None]
  variant = attentions.build("cosine(0.1, learned=False)")
  q, k = variant.condition({}, z, axes)
  s_BHLM = BoundVariant(variant).dot(q, k, variant.scale({}, 4))
  want = [0.964233, 0.0354187, 3.4698e-4, 1.7554e-6]
  close(jax.nn.softmax(s_BHLM)[0, 0, 0], want, atol=1e-6)


def test_a_vector_of_zeros_has_no_direction_and_a_finite_gradient():
  for spec in ("cosine", "qk_norm_l2", "qk_norm", "qk_norm(centered=True)"):
    variant, params = start(spec)
    x = jnp.zeros((1, 1, 1, K))
    loss = lambda x, variant=variant, params=params: jnp.sum(
      variant.condition(params, x, x)[0]
    )
    value, grad = interpreted(jax.value_and_grad(loss))(x)
    assert value == 0 and np.all(np.isfinite(grad)), spec


def test_softcap():
  cap = attentions.build("softcap(2)").logits
  close(cap({}, Z), [0.924234, 0.489837, -0.199336, -0.924234])
  slope = interpreted(jax.vmap(jax.grad(lambda z: cap({}, z))))(np.float32(Z))
  close(slope, 1 - np.tanh(Z / 2) ** 2)
  check(start("softcap(0.5)"), lambda *at: 0.5 * np.tanh(2 * dot(*at) / np.sqrt(K)))


def test_the_bias_is_capped_too_and_the_mask_is_not():
  variant = attentions.build("softcap(2)")
  alibi = positions.build("alibi")
  params = alibi.init(jax.random.key(0), DIMS) | alibi.constants(DIMS)
  slope_H = np.asarray(next(iter(params.values())))
  q, k, v = (jnp.asarray(x, jnp.float32)[None] for x in (Q, KEYS, V))
  position, bound = bind(alibi, params, DIMS), BoundVariant(variant)
  core = cores.build("dense")
  got = interpreted(lambda *qkv: core(*qkv, CAUSAL, CAUSAL, position, None, bound))(
    q, k, v
  )[0]
  score = lambda h, i, j: dot(h, i, j) / np.sqrt(K) - slope_H[h] * (i - j)
  close(got, softmax_rows(lambda *at: 2 * np.tanh(score(*at) / 2)), atol=5e-6)


def replay(name):
  """Returns what was recorded of a layer, and its weights in our shapes."""
  there = recorded("x_transformers/conditioning")
  own = {n.removeprefix(f"{name}/"): x for n, x in there.items() if f"{name}/" in n}
  heads = lambda letter: own[f"to_{letter}.weight"].T.reshape(16, 2, 8)
  params = {f"{n}_DHK": heads(n[0]) for n in ("query", "key", "value")}
  params["out_HKD"] = own["to_out.weight"].T.reshape(2, 8, 16)
  return there | own, params


@functools.partial(interpreted, statics=1)
def run(variant, params, x, grad_out, at):
  """Returns a layer's output and its gradients for parameters and tokens."""
  H = params["out_HKD"].shape[0]
  dims = Dims(V=8, D=16, H=H, F=8, L=10, K=8)
  parts = positions.build("none"), cores.build("dense"), variant
  arch = Architecture(dims, *parts, decoders=1)
  layer = Attention(arch, arch.position, variant)
  forward = lambda params, x: layer.apply({"params": params}, x, at)[0]
  out, pull = jax.vjp(forward, params, x)
  return out, *pull(grad_out)


def compare(there, out, d_params, dx):
  """Compares outputs, gradients for tokens, and norms of those for weights."""
  real, norm = there["real"], lambda x: np.linalg.norm(np.ravel(x))
  close(out[real], there["out"][real], atol=3e-6)
  close(dx, there["dx"], atol=2e-5)
  for theirs, grad in d_params.items():
    want = there[f"grad_norm/{theirs}"]
    np.testing.assert_allclose(norm(grad), want, rtol=1e-5, err_msg=theirs)


THEIRS = {
  "query_DHK": "to_q.weight",
  "key_DHK": "to_k.weight",
  "value_DHK": "to_v.weight",
  "out_HKD": "to_out.weight",
}


@pytest.mark.parametrize(
  ("name", "spec"),
  [
    ("sliding", "window(4)"),  # `max_attend_past=3` does not count the token itself
    ("softclamp", "softcap(2)"),
    ("qk_norm", "cosine(0.1, learned=False)"),
  ],
)
def test_layers_of_x_transformers(name, spec):
  there, params = replay(name)
  grad_out = there["grad_out"] * there["real"][..., None]
  at = coords.padded(there["real"])
  out, grads, dx = run(attentions.build(spec), params, there["x"], grad_out, at)
  compare(there, out, {THEIRS[name]: grad for name, grad in grads.items()}, dx)


@pytest.mark.parametrize("by", ["layer", "head"])
def test_learned_gains_of_x_transformers(by):
  """That library has gains for each head: `per_head`, or a layer for each head."""
  there, params = replay("qk_norm_learned")
  grad_out = there["grad_out"] * there["real"][..., None]
  at, root = coords.padded(there["real"]).bidirectional(), 8**0.5
  spec = f"qk_norm(epsilon=1e-12, per_head={by == 'layer'})"
  gain = lambda which: there[f"qk_norm_{which}_scale"][:, 0] / root
  if by == "layer":
    params |= {"query_gain_HK": gain("q"), "key_gain_HK": gain("k")}
    out, grads, dx = run(attentions.build(spec), params, there["x"], grad_out, at)
  else:
    out, grads, dx = 0, [], 0
    for h in range(2):
      one = lambda x, axis, h=h: jnp.split(x, 2, axis)[h]
      own = {name: one(x, axes_of(name).index("H")) for name, x in params.items()}
      own |= {"query_gain_K": gain("q")[h], "key_gain_K": gain("k")[h]}
      more = run(attentions.build(spec), own, there["x"], grad_out, at)
      out, dx = out + more[0], dx + more[2]
      grads.append(more[1])
    grads = {name: np.stack([d[name] for d in grads]) for name in grads[0]}
  theirs = {THEIRS[name]: grads[name] for name in THEIRS}
  for letter, which in (("q", "query"), ("k", "key")):
    (grad,) = (x for name, x in grads.items() if name.startswith(f"{which}_gain"))
    theirs[f"qk_norm_{letter}_scale"] = grad / root
  compare(there, out, theirs, dx)


@pytest.mark.parametrize(
  ("spec", "says"),
  [
    ("softcap(0)", "softcap: cap is 0; write a number above 0"),
    ("scale(factor=-1)", "scale: factor is -1; write a number above 0"),
    ("cosine(0.001)", "cosine: tau is 0.001; write a number from 0.01 up"),
    ("cosine + scale(0)", "cosine and scale both decide the scale"),
    ("qk_norm_l2 + cosine", "qk_norm_l2 and cosine both decide the scale"),
  ],
)
def test_what_cannot_be_is_one_error(spec, says):
  with pytest.raises(SpecError, match=says):
    attentions.build(spec)
