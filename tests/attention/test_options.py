"""x-transformers' options: layers equal to its own, and what they may be combined with.

How scores become weights is compared with the papers in test_weights.py.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_conditioning import THEIRS, close, compare, run
from test_recorded import recorded

from transformer_jax.attention import attentions
from transformer_jax.attention.cache import CachedText
from transformer_jax.attention.cores import cores
from transformer_jax.axes import Dims
from transformer_jax.evaluation.decode import greedy
from transformer_jax.models import Architecture, Transformer, empty_cache
from transformer_jax.models.compatibility import form
from transformer_jax.models.transformer import Attention
from transformer_jax.numpy_interpreter import evaluate, trace
from transformer_jax.positions import coords, positions
from transformer_jax.spec import SpecError

GATES = {"gate_headwise": "gate_DH", "swiglu_values": "gate_DHE"}


@pytest.mark.parametrize(
  ("name", "spec"),
  [
    ("sparse_topk", "topk(3)"),
    ("cog_signed", "cog"),
    ("selective", "selective"),
    ("laser", "laser(4)"),
    ("l2_distance", "l2_distance"),
    ("swiglu_values", "gated(activation='silu')"),
    ("gate_headwise", "gated(headwise=True)"),
    ("sigmoid_causal", "sigmoid(fixed=1)"),
  ],
)
def test_layers_of_x_transformers(name, spec):
  there = recorded("x_transformers/options")
  own = {n.removeprefix(f"{name}/"): x for n, x in there.items() if f"{name}/" in n}
  heads = lambda weight: own[weight].T.reshape(16, 2, 8)
  params = {ours: heads(theirs) for ours, theirs in THEIRS.items()}
  params["out_HKD"] = own["to_out.weight"].T.reshape(2, 8, 16)
  names = dict(THEIRS)
  if name in GATES:
    gate = own["to_v_gate.weight"].T
    params[GATES[name]] = gate if name == "gate_headwise" else gate.reshape(16, 2, 8)
    names[GATES[name]] = "to_v_gate.weight"
  grad_out = there["grad_out"] * there["real"][..., None]
  at = coords.padded(there["real"])
  # Their outputs and gradients reach some tens: float32 holds that many digits.
  size = max(1.0, np.abs(own["out"]).max(), np.abs(own["dx"]).max() / 10)
  out, grads, dx = run(attentions.build(spec), params, there["x"], grad_out, at)
  scaled = {"out": own["out"] / size, "dx": own["dx"] / size}
  theirs = {names[n]: grad for n, grad in grads.items()}
  compare(there | own | scaled, out / size, theirs, dx / size)


# LASER: what is mixed are exponentials, and what comes out is a logarithm.


def test_a_constant_value_is_what_laser_finds():
  laser = attentions.build("laser(cap=15)")
  v = jnp.array([-3.0, 0.0, 2.0, 80.0, -1e4]).reshape(5, 1, 1, 1)
  got = jnp.ravel(laser.mixed({}, laser.values({}, v)))
  close(got, 15 * np.tanh(np.ravel(v) / 15), atol=1e-5)
  nothing = jnp.zeros((1, 1, 1, 2))
  value, pull = jax.vjp(lambda o: laser.mixed({}, o), nothing)
  assert not np.any(value) and np.all(np.isfinite(pull(nothing + 1)[0]))


@pytest.mark.parametrize(
  ("spec", "says"),
  [
    ("laser + cog", "cog may give negative weights, and laser needs mixtures above"),
    ("talking_heads + laser", "talking_heads may give negative weights, and laser"),
    ("alternate(laser, multihead) + cog", "cog may give negative weights"),
    ("laser(0)", "cap is 0; write a number above 0"),
    ("laser(100)", "cap is 100"),
    ("gated(source='x')", "source is 'x'; write input or output or both"),
    ("gated(rank=-1)", "rank is -1"),
    ("gated(headwise=True, rank=2)", "write headwise=False or rank=0"),
    ("tpa(0)", "rank is 0; write a whole number from 1"),
    ("tpa(queries=1.5)", "queries is 1.5"),
    ("twin_queries(-1)", "groups is -1"),
    ("value_norm + laser", "value_norm and laser both decide what is mixed"),
    ("gated(activation='relu')", "activation is 'relu'; write sigmoid or silu"),
    ("l2_distance + additive", "l2_distance and additive both decide how a query"),
  ],
)
def test_what_cannot_be_is_one_error(spec, says):
  with pytest.raises(SpecError, match=says):
    attentions.build(spec)


def test_what_has_a_meaning_together_is_built():
  for spec in (
    "laser + talking_heads(after=False)",
    "laser + topk(4) + window(8)",
    "topk + gqa(2) + softcap(5)",
    "l2_distance + sinks",
  ):
    variant = attentions.build(spec)
    assert cores.build("dense").refusal(positions.build("rope"), variant) is None


@pytest.mark.parametrize(
  ("variant", "encoding", "says"),
  [
    ("laser", "shaw", "shaw adds to the mixture of values, of which laser takes"),
    ("l2_distance", "xpos", "xpos rescales queries or keys for a dot product"),
    ("l2_distance", "log_n", "log_n rescales queries or keys"),
  ],
)
def test_encodings_without_a_meaning_there_are_refused(variant, encoding, says):
  encoding, variant = positions.build(encoding), attentions.build(variant)
  for core in ("dense", "blockwise"):
    assert says in cores.build(core).refusal(encoding, variant)


def test_distances_do_not_change_when_all_positions_move():
  """Rotations keep lengths: |R q - R k| depends on relative positions alone."""
  dims = Dims(V=8, D=16, H=2, F=8, L=6)
  parts = positions.build("rope"), cores.build("dense"), attentions.build("l2_distance")
  arch = Architecture(dims, *parts, decoders=1)
  layer = Attention(arch, *arch.layer("decoder", 0))
  x = jax.random.normal(jax.random.key(0), (1, 6, 16))
  start = evaluate(layer.init, jax.random.key(1), x, coords.consecutive(1, 6))
  here, there = (coords.consecutive(1, 6, n) for n in (0, 50))
  read = trace(lambda at: layer.apply(start, x, at)[0], here)
  np.testing.assert_allclose(read(here), read(there), atol=1e-4)


# Selective attention reads earlier queries, which a cache of keys does not hold.


@functools.cache
def selective(attention="selective", layers=2):
  arch = Architecture(
    Dims(V=11, D=16, H=2, F=16, L=16),
    positions.build("rope"),
    cores.build("dense"),
    attentions.build(attention),
    decoders=layers,
  )
  model = Transformer(arch)
  token_BL = np.random.default_rng(1).integers(0, 11, (2, 9))
  return model, evaluate(model.init, jax.random.key(0), token_BL)["params"], token_BL


def test_selective_decoding_is_the_full_pass():
  model, params, token_BL = selective()
  cache = empty_cache(model.arch, 2, 9)
  assert isinstance(cache, CachedText)
  assert isinstance(empty_cache(model.arch, 2, 9, frozen=True), CachedText)
  assert isinstance(
    empty_cache(selective("alternate(multihead, selective)")[0].arch, 2, 9), CachedText
  )
  whole = evaluate(lambda x: model.apply({"params": params}, x), token_BL)

  def decode(x, at, cache):
    return model.apply({"params": params}, x, at, cache=cache, method="decode")

  at = coords.consecutive(2, 9)
  tokens = [jax.tree.map(lambda x, n=n: x[:, n : n + 1], at) for n in range(9)]
  step = trace(decode, token_BL[:, :1], tokens[0], cache)
  for n, at in enumerate(tokens):
    got, cache = step(token_BL[:, n : n + 1], at, cache)
    np.testing.assert_allclose(got[:, 0], whole[:, n], atol=2e-5)
  written = evaluate(lambda x: greedy(model, params, x, 2), token_BL)
  best = np.argmax(whole[:, -1], axis=-1)
  np.testing.assert_array_equal(written[:, 0], best)


def test_selective_refuses_what_cannot_hold_its_sums():
  model, params, token_BL = selective()
  plain = empty_cache(selective("multihead")[0].arch, 2, 9)
  decode = functools.partial(model.apply, {"params": params}, method="decode")
  with pytest.raises(
    ValueError, match="selective reads earlier queries, which no cache"
  ):
    jax.eval_shape(lambda: decode(token_BL, cache=plain))
  for use in ("encoder", "prefix", "cross"):
    with pytest.raises(ValueError, match=f"selective in {use}.*use it in a decoder"):
      form(attentions.build("selective"), use)


def test_a_window_does_not_move_the_first_token_of_a_text():
  """Within a window, the first key that a query sees may well be held against."""
  variant = attentions.build("selective")
  s_BHLM = np.float32(np.abs(np.sin(1.0 + np.arange(36.0)))).reshape(1, 1, 6, 6)
  i, j = np.indices((6, 6))
  seen = np.array((j <= i) & (i - j < 3))[None, None]
  got = evaluate(lambda s, seen: variant.weigh({}, s, seen), s_BHLM, seen)[0, 0]
  z = np.asarray(s_BHLM[0, 0], float)
  want = np.zeros((6, 6))
  for q in range(6):
    keys = range(max(0, q - 2), q + 1)
    held = lambda k, q=q: sum(z[p, k] for p in range(k + 1, q) if p - k < 3 and k > 0)
    e = np.exp([z[q, k] - held(k) for k in keys])
    want[q, list(keys)] = e / e.sum()
  np.testing.assert_allclose(got, want, atol=1e-6)
