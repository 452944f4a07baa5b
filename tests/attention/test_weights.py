"""How scores become weights is what the papers say, in values and in gradients.

Loops over single keys, in float64, are in oracles/attentions.py; numbers without a
source are worked examples of the formulas, made with NumPy and central differences.
"""

import dataclasses
import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from oracles.attentions import WEIGHINGS, attend, entmax
from test_conditioning import THEIRS, compare, run
from test_references import PADDED, TWO_TEXTS, assert_close, check_slopes

from transformer_jax.attention import BoundVariant, attentions
from transformer_jax.attention.cores import cores
from transformer_jax.axes import Dims
from transformer_jax.models.compatibility import form
from transformer_jax.numpy_interpreter import evaluate, trace
from transformer_jax.positions import PositionalEncoding, bind, coords
from transformer_jax.spec import SpecError

B, L = 2, 9
DIMS = Dims(V=2, D=12, H=3, F=2, L=L)
CASES = {case.spec: case for case in WEIGHINGS}
NOTHING = bind(PositionalEncoding(), {}, DIMS)
AT = coords.packed(jnp.array([TWO_TEXTS, PADDED]))
ROWS = [oracles.Where(row, [0] * L) for row in (TWO_TEXTS, PADDED)]
Z = [1.0, 0.5, -0.2, -1.0]


def det(shape, shift):
  """Returns numbers that anyone can make again."""
  return np.sin(0.37 * np.arange(np.prod(shape)) + shift).reshape(shape)


def point(variant):
  """Returns parameters with {q, k, v}, and a cotangent, in float64."""
  random = np.random.default_rng(3)
  shapes = jax.eval_shape(lambda: variant.init(jax.random.key(0), DIMS))
  point = {name: random.normal(size=s.shape) for name, s in shapes.items()}
  point |= {name: random.normal(size=(B, L, DIMS.H, DIMS.K)) for name in "qkv"}
  return point, random.normal(size=(B, L, DIMS.H, DIMS.K))


# Interpreted: what XLA makes of a variant is compared with another core's in
# test_attentions.py.
def ours(variant, point, cotangent):
  """Returns dense attention and the gradient of its product with the cotangent."""

  def loss(point):
    q, k, v = (point[name] for name in "qkv")
    bound = BoundVariant(variant, {n: x for n, x in point.items() if n not in "qkv"})
    out = cores.build("dense")(q, k, v, AT, AT, NOTHING, variant=bound)
    return jnp.sum(out * cotangent), out

  gradient, out = evaluate(jax.grad(loss, has_aux=True), point)
  return out, gradient


def oracle(case, point):
  q, k, v = (point[name] for name in "qkv")
  rows = zip(q, k, v, ROWS, strict=True)
  run = functools.partial(attend, case.weights, point_of(point), carried=case.carried)
  return np.array([run(*row) for row in rows])


def point_of(point):
  return {name: x for name, x in point.items() if name not in "qkv"}


@pytest.mark.parametrize("spec", CASES)
def test_attention_and_its_gradients_are_what_the_paper_says(spec):
  case, variant = CASES[spec], attentions.build(spec)
  here, cotangent = point(variant)
  half = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), (here, cotangent))
  out, gradient = ours(variant, *half)
  assert_close(out, oracle(case, here), spec)
  assert sum(x.size for x in point_of(here).values()) == case.parameters(DIMS.H)
  gradient = {name: np.asarray(x, float) for name, x in gradient.items()}
  assert all(np.abs(x).max() > 1e-5 for x in gradient.values())
  loss = lambda moved: np.sum(oracle(case, here | moved) * cotangent)
  for group in [{*"qkv"}] + [{*point_of(here)}] * bool(point_of(here)):
    check_slopes({name: gradient[name] for name in sorted(group)}, loss, here)


def weights(spec, z, params=None, seen=None):
  """Returns the weights of one row of scores, in one head."""
  seen = np.ones(len(z), bool) if seen is None else seen
  run = functools.partial(row, attentions.build(spec))
  return evaluate(run, params or {}, np.array(z, np.float32), seen)


def row(variant, params, z_M, mask_M):
  bound = BoundVariant(variant, params)
  return bound.weigh(z_M[None, None, None], mask_M[None, None])[0, 0, 0]


def near(got, want, atol=1e-6):
  np.testing.assert_allclose(got, want, rtol=0, atol=atol)


@pytest.mark.parametrize(
  "spec,want",
  [
    ("multihead", [0.489462, 0.296874, 0.147423, 0.066241]),
    ("softmax_one", [0.414776, 0.251574, 0.124928, 0.056134]),
    ("sigmoid", [0.40461, 0.291875, 0.169906, 0.084224]),
    ("relu", [0.25, 0.125, 0, 0]),
    ("sparsemax", [0.75, 0.25, 0, 0]),
    ("entmax", [0.649015, 0.308708, 0.042277, 0]),
    ("topk(2)", [0.622459, 0.377541, 0, 0]),
    ("topk(9)", [0.489462, 0.296874, 0.147423, 0.066241]),
    ("cog", [0.327240, 0.198481, -0.147038, -0.327240]),
    ("stick_breaking(True)", [0.110943, 0.250204, 0.329098, 0.268941]),
  ],
)
def test_weights_of_four_scores(spec, want):
  near(weights(spec, Z), want)
  # Keys that are not seen change nothing, wherever they are and whatever they score.
  seen = np.array([0, 1, 1, 0, 1, 0, 1, 0], bool)
  among = np.full(8, 7.0)
  among[seen] = Z
  found = np.asarray(weights(spec, among, seen=seen))
  near(found[seen], want)
  assert not np.any(found[~seen])


def test_a_sink_takes_its_share():
  sink = lambda x: {"sink_H": jnp.full(1, x)}
  near(weights("sinks", Z, sink(0.7)), [0.359211, 0.217873, 0.108192, 0.048614])
  near(weights("sinks", Z, sink(0.0)), weights("softmax_one", Z))
  near(weights("sinks", Z, sink(-200.0)), weights("multihead", Z))


def test_the_gradient_of_a_sink():
  q, k, v, g = (jnp.float32(det((5, 3), shift)) for shift in (0.1, 0.6, 1.1, 1.9))
  at, variant = coords.consecutive(1, 5), attentions.build("sinks")

  def loss(sink_H):
    args = (x[None, :, None] for x in (q, k, v))
    bound = BoundVariant(variant, {"sink_H": sink_H})
    out_BLHK = cores.build("dense")(*args, at, at, NOTHING, variant=bound)
    return jnp.sum(out_BLHK[0, :, 0] * g)

  near(evaluate(jax.grad(loss), np.full(1, 0.7, np.float32)), [-0.304660])


def test_the_gradients_of_entmax():
  args = {}, np.float32(Z), np.ones(4, bool)
  root = functools.partial(row, attentions.build("entmax"))
  slope_MM = evaluate(jax.jacobian(root, argnums=1), *args)
  s_M = np.sqrt(evaluate(root, *args))
  near(slope_MM, np.diag(s_M) - np.outer(s_M, s_M) / s_M.sum())
  near(slope_MM[0], [0.391397, -0.285677, -0.10572, 0])
  learned = functools.partial(row, attentions.build("entmax(learned=True)"))
  start = {"alpha_logit_H": np.zeros(1, np.float32)}
  by_logit = evaluate(jax.jacobian(learned), start, *args[1:])
  # alpha is 1 + sigmoid(0) here, and the sigmoid's slope is a quarter.
  by_alpha = 4 * by_logit["alpha_logit_H"][:, 0]
  near(by_alpha, [0.30137, -0.009085, -0.292286, 0])


def test_a_stick_that_is_broken_four_times():
  s_LM = jnp.float32(det((5, 3), 0.1) @ det((5, 3), 0.6).T / np.sqrt(3))
  want = [0.016883, 0.019484, 0.10047, 0.803519]
  near(weights("stick_breaking", s_LM[4]), [*want, 0])
  near(weights("stick_breaking(remainder=True)", s_LM[4]), [*want, 0.059643])
  near(weights("stick_breaking", s_LM[4, :1]), [0])


def test_neutral_parameters_leave_a_softmax():
  both = {"mix_scores_HN": jnp.eye(1), "mix_weights_HN": jnp.eye(1)}
  near(weights("talking_heads", Z, both), weights("multihead", Z))
  near(weights("entmax(2.0)", Z), weights("sparsemax", Z))
  near(weights("entmax(1.001)", Z), weights("multihead", Z), atol=2e-3)
  start = attentions.build("talking_heads").init(jax.random.key(0), DIMS)
  assert all(np.array_equal(x, np.eye(3)) for x in start.values())
  start = attentions.build("entmax(1.3, learned=True)").init(None, DIMS)
  near(1 + jax.nn.sigmoid(start["alpha_logit_H"]), [1.3] * 3)
  many = dataclasses.replace(DIMS, H=4000, D=4000)
  start = attentions.build("sinks").init(jax.random.key(0), many)["sink_H"]
  near(start.std(), 0.02, atol=0.001)


@pytest.mark.parametrize("spec", CASES)
def test_what_the_weights_of_a_row_add_up_to(spec):
  case, variant = CASES[spec], attentions.build(spec)
  params = jax.tree.map(np.float32, point_of(point(variant)[0]))
  s_BHLM = np.float32(2 * np.random.default_rng(0).normal(size=(1, DIMS.H, 1, 7)))
  mask_BLM = np.array([[[0, 1, 1, 1, 0, 1, 1]]], bool)
  run = lambda s, seen: BoundVariant(variant, params).weigh(s, seen)
  weigh = trace(run, s_BHLM, mask_BLM)
  w_BHLM = weigh(s_BHLM, mask_BLM)
  total = w_BHLM.sum(-1)
  assert not np.any(w_BHLM[..., ~mask_BLM[0, 0]])
  assert case.total == "free" or np.all(w_BHLM >= 0)
  assert (np.abs(total - 1).max() < 1e-6) == (case.total == "one"), total
  assert case.total != "less" or np.all(total < 1)
  moved = np.abs(weigh(s_BHLM + 0.5, mask_BLM) - w_BHLM).max()
  assert (moved < 1e-6) == case.shift, moved
  assert not np.any(weigh(s_BHLM, np.zeros_like(mask_BLM)))


@pytest.mark.parametrize("spec", CASES)
def test_large_scores_and_empty_rows_give_numbers(spec):
  variant = attentions.build(spec)
  params = jax.tree.map(np.float32, point_of(point(variant)[0]))
  far = [[3e4, -3e4, 10.0], [-3e4, -3e4, -2e4], [80.0, 90.0, 1.0], [1, 2, 3]]
  s_BHLM = np.broadcast_to(np.float32(far), (1, DIMS.H, 4, 3))
  mask_BLM = np.array([[[1, 1, 1]] * 3 + [[0, 0, 0]]], bool)

  def weigh(params, s_BHLM):
    run = lambda params, s_BHLM: BoundVariant(variant, params).weigh(s_BHLM, mask_BLM)
    w_BHLM, pull = jax.vjp(run, params, s_BHLM)
    g_BHLM = jnp.cos(jnp.arange(w_BHLM.size, dtype=jnp.float32)).reshape(w_BHLM.shape)
    return w_BHLM, pull(g_BHLM)

  w_BHLM, grads = evaluate(weigh, params, s_BHLM)
  assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves((w_BHLM, grads)))
  assert not np.any(w_BHLM[:, :, 3]) and not np.any(grads[1][:, :, 3])


@pytest.mark.parametrize("alpha", [1.1, 1.5, 2.0])
def test_entmax_is_exact_over_thousands_of_keys(alpha):
  z = np.random.default_rng(0).normal(size=4096)
  w = np.asarray(weights(f"entmax({alpha})", z))
  want = np.array(entmax(alpha)(None, z.astype(np.float32).astype(float)))
  # Shares of a threshold that float32 knows to 6e-8.
  np.testing.assert_allclose(w, want, atol=2e-6, rtol=1e-4)
  assert abs(w.sum() - 1) < 1e-5


def test_sticks_are_refused_where_there_is_no_nearest_key():
  for use in ("encoder", "prefix", "cross"):
    with pytest.raises(ValueError, match=f"stick_breaking in {use}.*in a decoder"):
      form(attentions.build("stick_breaking"), use)
    with pytest.raises(ValueError, match=rf"\+ stick_breaking in {use}.*in a decoder"):
      form(attentions.build("window(3) + stick_breaking"), use)


@pytest.mark.parametrize(
  "name,spec,causal",
  [
    ("talking_heads", "talking_heads", False),
    ("head_learned_sink", "sinks", True),
    ("add_zero_kv", "softmax_one", False),
  ],
)
def test_layers_of_x_transformers(name, spec, causal):
  file = pathlib.Path(__file__).parents[2] / "third_party/x_transformers/weights.npz"
  with np.load(file, allow_pickle=False) as recorded:
    there = {key.removeprefix(f"{name}/"): x for key, x in recorded.items()}
  heads = lambda name: there[name].T.reshape(16, 2, 8)
  params = {ours: heads(name) for ours, name in THEIRS.items()}
  params["out_HKD"] = there["to_out.weight"].T.reshape(2, 8, 16)
  names = dict(THEIRS)
  for ours, theirs in OWN[name].items():
    # Theirs are [out, in], and what is mixed before the softmax is added to the scores.
    same = np.eye(2) if ours == "mix_scores_HN" else 0.0
    params[ours] = same + np.squeeze(there[theirs]).T
    names[ours] = theirs
  at = coords.padded(there["real"])
  at = at if causal else at.bidirectional()
  grad_out = there["grad_out"] * there["real"][..., None]
  out, grads, dx = run(attentions.build(spec), params, there["x"], grad_out, at)
  compare(there, out, {names[ours]: grad for ours, grad in grads.items()}, dx)


OWN = {
  "talking_heads": {
    "mix_scores_HN": "attend.pre_softmax_talking_heads.weight",
    "mix_weights_HN": "attend.post_softmax_talking_heads.weight",
  },
  "head_learned_sink": {"sink_H": "attend.head_attn_sink"},
  "add_zero_kv": {},
}


@pytest.mark.parametrize(
  "spec,says",
  [
    ("sinks(-1.0)", "deviation is -1.0"),
    ("sinks('a')", "deviation is 'a'"),
    ("sigmoid(fixed=-1)", "fixed is -1"),
    ("sigmoid(0.5)", "fixed is 0.5"),
    ("relu('a')", "power is 'a'"),
    ("relu(fixed=-1)", "fixed is -1"),
    ("entmax(1.0)", "alpha is 1.0; write a number above 1"),
    ("entmax(2.5)", "alpha is 2.5"),
    ("entmax('a')", "alpha is 'a'"),
    ("entmax(2, learned=True)", "write alpha=1.5"),
    ("talking_heads(False, False)", "set before=True"),
    ("topk(0)", "k is 0; write a whole number from 1"),
    ("topk(2.5)", "k is 2.5"),
    ("topk + cog", "topk and cog both decide how scores become weights"),
    ("sinks + softmax_one", "sinks and softmax_one both decide how scores"),
    ("entmax + talking_heads", "entmax and talking_heads both decide"),
  ],
)
def test_bad_arguments_give_one_error(spec, says):
  with pytest.raises(SpecError, match=says):
    attentions.build(spec)
