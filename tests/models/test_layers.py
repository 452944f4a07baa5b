"""Placements, activations and norms are their papers' formulas."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_parameters import of_model

from transformer_jax.axes import Dims
from transformer_jax.models import Architecture, Transformer
from transformer_jax.models.feature_norms import norms
from transformer_jax.models.layers import activations
from transformer_jax.models.param_tree import flat
from transformer_jax.models.residual import Placement, placements
from transformer_jax.numpy_interpreter import evaluate

X = np.linspace(-4, 4, 33).astype(np.float32)
GAINS = {"f": 2, "g": 5, "f_update": 7, "g_update": 11}  # norms that only multiply


# Placements without parameters, whose stream is x_BLD.
SUMS = [n for n, kind in placements.items() if kind.init is Placement.init]


@pytest.mark.parametrize(
  "spec, expected",
  [
    ("pre", 208),  # 1 + f(2) = 13; 13 + g(65)
    ("pre(first_norm=False)", 192),  # 1 + f(1) = 12; 12 + g(60)
    ("post", 480),  # 2 (1 + f(1)) = 24; 5 (24 + g(24))
    ("sandwich", 14110),  # 1 + 7 f(2) = 85; 85 + 11 g(425)
    ("update", 368),  # 1 + 2 f(1) = 23; 23 + 5 g(23)
    ("no_residual", 180),  # f(2) = 12; g(60)
    ("parallel", 28),  # 1 + f(2) + g(5)
    ("parallel(norms='one')", 19),  # 1 + f(2) + g(2)
    ("by_layer((update, pre))", 368),  # of layer 0
  ],
)
def test_placements(spec, expected):
  norm = lambda name: lambda x: GAINS[name] * x
  parts = {"f": lambda x: x + 10, "g": lambda x: 3 * x}
  assert placements.build(spec)(norm, 1, parts) == expected


def test_the_first_norm_is_left_out_of_layer_0_alone():
  kind = placements.build("pre(final_norm=False, first_norm=False)")
  assert kind.layer(0) == kind
  assert kind.layer(1) == kind.layer(7) == placements.build("pre(final_norm=False)")
  for name in {*SUMS} - {"by_layer"}:
    assert placements.build(name).layer(3) == placements.build(name)


def test_a_list_of_placements_has_one_for_each_layer():
  pre, post = "pre(first_norm=False)", "post(final_norm=True)"
  mixed = placements.build(f"by_layer(({pre}, {post}, update))")
  after = [pre, post, "update", "pre", post]
  assert [mixed.layer(n) for n in range(5)] == [placements.build(x) for x in after]
  assert mixed.final_norm
  with pytest.raises(ValueError, match="write final_norm alike in all"):
    placements.build("by_layer((pre, post))")
  with pytest.raises(ValueError, match="write a list of placements, as in by_layer"):
    placements.build("by_layer(pre)")


def test_without_hidden_units_there_is_no_feedforward_part():
  dims = Dims(V=7, D=8, H=2, F=0, L=8)
  model = Transformer(Architecture(dims, "rope", decoders=1))
  token_BL = jnp.arange(8).reshape(2, 4) % 7
  params = of_model(model, token_BL)
  assert {*params["decoder"]["layer_0"]} == {"attention", "attention_norm"}
  logits_BLV = evaluate(lambda p, x: model.apply({"params": p}, x), params, token_BL)
  assert np.all(np.isfinite(logits_BLV))


def test_a_parallel_placement_has_norms_for_each_or_one():
  with pytest.raises(ValueError, match="write 'each' or 'one'"):
    placements.build("parallel(norms='two')")


def test_without_norms_placements_differ_in_their_sums_alone():
  dims = Dims(V=7, D=8, H=2, F=8, L=8)
  token_BL = jnp.arange(8).reshape(2, 4) % 7

  def model(placement):
    arch = Architecture(dims, "rope", norm="none", norm_placement=placement, decoders=2)
    return Transformer(arch)

  params = model("pre").init(jax.random.key(0), token_BL)
  assert not [path for path in flat(params["params"]) if "norm" in path]
  logits = {name: model(name).apply(params, token_BL) for name in SUMS}
  for name in ("post", "sandwich", "update", "by_layer"):
    np.testing.assert_array_equal(logits[name], logits["pre"])
  for name in ("no_residual", "parallel"):
    assert np.all(np.isfinite(logits[name]))
    assert np.abs(logits[name] - logits["pre"]).max() > 1e-2


def gelu(x):
  return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2


def tanh_gelu(x):
  return x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2


def silu(x, steep=1.0):
  return x / (1 + np.exp(-steep * x))


@pytest.mark.parametrize(
  "spec, expected",
  [
    ("relu", np.maximum(X, 0)),
    ("gelu", tanh_gelu(X)),
    ("gelu(approximate=False)", gelu(X)),
    ("quick_gelu", silu(X, steep=1.702)),
    ("silu", silu(X)),
    ("tanh", np.tanh(X)),
    ("swiglu", (X + 1) * silu(X)),
    ("geglu", (X + 1) * tanh_gelu(X)),
    ("geglu(approximate=False)", (X + 1) * gelu(X)),
  ],
)
def test_activations(spec, expected):
  activation = activations.build(spec)
  given = (X + 1, X) if activation.gated else (X,)
  found = activation(*map(jnp.asarray, given))
  np.testing.assert_allclose(found, expected, atol=2e-6)


def test_gains_may_be_around_one_and_shifts_left_out():
  x, gain = X[None], np.linspace(-1, 1, 33, dtype=np.float32)
  around = norms.build("rmsnorm(offset=1.0)")
  np.testing.assert_array_equal(around.init(33)["gain_D"], np.zeros(33))
  rms = x / np.sqrt((x**2).mean() + 1e-6)
  found = around({"gain_D": gain}, jnp.asarray(x))
  np.testing.assert_allclose(found, (1 + gain) * rms, atol=1e-6)
  bare = norms.build("layernorm(shift=False)")
  assert bare.init(33).keys() == {"gain_D"}
  x = x + 3
  scaled = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
  found = bare({"gain_D": gain}, jnp.asarray(x))
  np.testing.assert_allclose(found, gain * scaled, atol=1e-6)
