"""Contract of every registered mixer: causal, packed, padded, decoded, on a mesh."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles.mixers import MIXERS

import transformer_jax as tj
from experiments.contract import mixer as contract
from transformer_jax.attention import Mixer, StateCache, attentions
from transformer_jax.attention.mixers import mixer_probe
from transformer_jax.models import capture, empty_cache
from transformer_jax.models.compatibility import form
from transformer_jax.positions import coords
from transformer_jax.spec import SpecError
from transformer_jax.training import sharding

DIMS = tj.Dims(V=12, D=16, H=2, F=16, L=32)
NAMES = [name for name, kind in attentions.items() if kind.mixer]
# Besides the form without arguments: what a mixer has a choice of.
ARGUMENTS = {
  "delta_net": ["delta_net(1, heads=4, key_heads=1)"],
  "delta_product": ["delta_product(gated=False, writes=3, key_heads=1)"],
  "gated_delta": [
    "gated_delta(1, negative=True)",
    "gated_delta(heads=4, key_heads=2, key_width=6, value_width=10, epsilon=1e-3)",
  ],
  "gated_conv": ["gated_conv(4, bias=True)", "gated_conv(2)"],
  "rg_lru": ["rg_lru(12)", "rg_lru(convolution=1, bias=False)"],
  "gated_delta2": ["gated_delta2(negative=True, key_heads=1, value_width=6)"],
  "gla": ["gla(key_width=6, value_width=10, norm='rms', rank=3, slowness=2)"],
  "kda": ["kda(2, heads=4, key_heads=2, output_gate='silu', rank=3)"],
  "mamba2": [
    "mamba2(groups=2, state=6, width=5, bias=True, least_step=0.01, largest_step=0.1)",
    "mamba2(2, convolution=1, shift=False, norm_groups=2, gate_first=False)",
  ],
  "retention": ["retention(heads=4, norm='rms', rotate=False, value_width=6)"],
  "rwkv7": ["rwkv7(heads=4, key_width=6, value_width=10, rank=3, epsilon=1e-3)"],
}
SPECS = [spec for name in NAMES for spec in [name, *ARGUMENTS[name]]]
GROUPED = [spec for spec in SPECS if "key_heads=2" in spec or "groups=2" in spec]
# Whole models: with one update of the state for each token, and with two.
HYBRIDS = [f"alternate({name}, multihead, 2)" for name in ("gated_delta", "rwkv7")]
# A delta rule with a decay of each head, and of each feature; two updates for a token;
# no state; a state of numbers. They stand for the others in quick contract tests.
FEW = "gated_delta", "kda", "rwkv7", "gated_conv", "rg_lru", GROUPED[0]
KEPT = [
  pytest.param(spec, marks=() if spec in FEW else pytest.mark.slow)
  for spec in [*NAMES, *GROUPED]
]
CONTRACT = {
  name: value for name, value in vars(contract).items() if name.startswith("test_")
}
TOKENS = np.random.default_rng(0).integers(0, 11, (2, 24))


def moved(params):
  """Returns parameters away from one value, which would hide what is done with them."""
  keys = jax.random.split(jax.random.key(1), len(jax.tree.leaves(params)))
  keys = jax.tree.unflatten(jax.tree.structure(params), keys)
  move = lambda x, key: x + 0.1 * jax.random.normal(key, x.shape)
  return jax.tree.map(move, params, keys)


def model_of(spec, position="none", **more):
  arch = tj.Architecture(DIMS, position, attention=spec, decoders=2, **more)
  model = tj.Transformer(arch)
  init = jax.jit(lambda key: moved(model.init(key, TOKENS[:, :4])["params"]))
  return model, init(jax.random.key(0))


def logits(model, params, *args):
  return jax.jit(lambda p, *a: model.apply({"params": p}, *a))(params, *args)


def close(found, wanted):
  np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("spec", KEPT)
def test_a_mixer_keeps_its_contract(spec):
  """All properties at once, which share programs."""
  for title, holds in CONTRACT.items():
    try:
      holds(attentions.build(spec))
    except AssertionError as error:
      raise AssertionError(f"{title} of {spec}: {error}") from error


@pytest.mark.parametrize("spec", HYBRIDS)
def test_a_hybrid_decodes_what_it_reads(spec):
  model, params = model_of(spec)
  whole = logits(model, params, TOKENS)
  step = jax.jit(
    lambda token, at, cache: model.apply(
      {"params": params}, token, at, None, cache, method="decode"
    )
  )
  cache, found = empty_cache(model.arch, 2, 24), []
  for start in (0, 12):
    at = coords.consecutive(1, 12, start)
    out, cache = step(TOKENS[:, start : start + 12], at, cache)
    found.append(out)
  close(jnp.concatenate(found, axis=1), whole)


@pytest.mark.parametrize("spec", SPECS)
def test_a_cache_has_one_size_at_every_length(spec):
  arch = tj.Architecture(DIMS, "none", attention=spec, decoders=2)
  short, long = (jax.eval_shape(lambda M=M: empty_cache(arch, 2, M)) for M in (8, 800))
  assert short == long
  assert all(isinstance(own, StateCache) for own in short)


@pytest.mark.parametrize("spec", ["gated_delta", "rwkv7"])
def test_one_program_for_all_layers_recomputed_and_on_a_mesh(spec):
  model, params = model_of(spec, scan=True, remat="full")
  loss = lambda p: jnp.sum(jnp.sin(model.apply({"params": p}, TOKENS)))
  want = jax.jit(jax.value_and_grad(loss))(params)
  flat = dataclasses.replace(model.arch, scan=False, remat="none")
  layers = params["decoder"].pop("layers")
  unrolled = params | {
    "decoder": params["decoder"]
    | {f"layer_{n}": jax.tree.map(lambda x, n=n: x[n], layers) for n in range(2)}
  }
  close(jnp.sum(jnp.sin(logits(tj.Transformer(flat), unrolled, TOKENS))), want[0])
  params["decoder"]["layers"] = layers
  mesh = sharding.make_mesh(data=2, tensor=2)
  with jax.set_mesh(mesh):
    placed = jax.device_put(params, sharding.split(mesh, params))
    found = jax.jit(jax.value_and_grad(loss))(placed)
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True):
    close(a, b)


@pytest.mark.parametrize("name", NAMES)
def test_uses_without_a_meaning_are_refused(name):
  arch = tj.Architecture(DIMS, "none", attention=name, encoders=1)
  with pytest.raises(ValueError, match=f"^{name} in encoder .*from left to right"):
    tj.Transformer(arch).init(jax.random.key(0), TOKENS)
  with pytest.raises(ValueError, match=f"^{name} in cross attention: .*its own text"):
    form(attentions.build(name), "cross")
  with pytest.raises(SpecError, match=f"{name} is a mixer, without scores"):
    attentions.build(f"{name} + window(4)")
  assert isinstance(attentions.build(name), Mixer)


@pytest.mark.parametrize("spec", NAMES)
def test_every_mixer_passes_the_probe(spec):
  mixer_probe.probe(attentions.build(spec))


def of_own(**hooks):
  """Returns a mixer whose hooks are changed, as of a user's file."""
  base = type(attentions.build("gated_delta"))
  return dataclasses.dataclass(frozen=True)(type("Own", (base,), hooks))()


def later(self, params, x_BLD):
  return super(type(self), self).inputs(params, jnp.roll(x_BLD, -1, axis=1))


def before(self, params, x_BLD):
  x_BLD = jnp.pad(x_BLD, [(0, 0), (1, 0), (0, 0)])[:, :-1]
  return super(type(self), self).inputs(params, x_BLD)


def idle(self, key, dims):
  return super(type(self), self).init(key, dims) | {"idle_H": jnp.ones(dims.H)}


BROKEN = {
  "what later tokens hold": dict(inputs=later),
  "reads over the border": dict(inputs=before),
  "parameter 'idle_H' has no gradient": dict(init=idle),
  "result returns": dict(result=lambda self, params, x_BLD, inputs, o_BLHE: o_BLHE),
}


@pytest.mark.parametrize("message", BROKEN)
def test_a_mixer_that_breaks_the_contract_is_refused(message):
  with pytest.raises(SpecError, match=f"^Own.*{message}"):
    mixer_probe.probe(of_own(**BROKEN[message]))


@pytest.mark.parametrize("name", NAMES)
def test_every_chunk_is_counted(name):
  """XLA counts the body of a loop once: FLOPs of a token must not fall with length."""
  mixer = attentions.build(name)
  params = contract.parameters(mixer)

  def per_token(L):
    at = coords.consecutive(1, L)
    run = jax.jit(lambda p, x: mixer.mixed_by_state(p, x, at, unroll=True)[0])
    shape = jax.ShapeDtypeStruct((1, L, DIMS.D), jnp.float32)
    return run.lower(params, shape).cost_analysis()["flops"] / L

  assert per_token(512) >= 0.98 * per_token(64)


@pytest.mark.parametrize("spec", SPECS)
def test_a_mixer_is_the_formula_of_its_paper(spec):
  mixer = attentions.build(spec)
  params = contract.parameters(mixer)
  x_BLD = np.random.default_rng(4).normal(size=(1, 20, DIMS.D))
  update = jax.jit(
    lambda p, x: mixer.mixed_by_state(p, x, coords.consecutive(1, 20))[0]
  )
  wide = jax.tree.map(np.float64, params)
  found = update(params, np.float32(x_BLD))
  close(found[0], MIXERS[mixer.name](mixer, wide, x_BLD[0]))


SIZES = {
  "rg_lru(width=13)": "^attention=rg_lru: 13 channels do not divide",
  "gated_delta(heads=4, key_heads=3)": "^attention=gated_delta: 3 key_heads do not",
  "gated_delta(key_width=99999, value_width=999999)": "state of 2 heads .* 745 GiB",
}


@pytest.mark.parametrize("spec", SIZES)
def test_sizes_that_do_not_fit_are_refused(spec):
  with pytest.raises(ValueError, match=SIZES[spec]):
    tj.Architecture(DIMS, "none", attention=spec, decoders=1)


def test_a_mixer_has_no_weights_to_look_at():
  name = "gated_delta"
  model, params = model_of(name)
  with pytest.raises(ValueError, match=f"^{name} is a mixer, with none of .*weights"):
    capture.run(model, params, TOKENS)
  _, found = capture.run(model, params, TOKENS, want=("state", "update"))
  assert "decoder/layer_0/attention" in found["update"]


@pytest.mark.parametrize("name", NAMES)
def test_an_encoding_without_a_layer_to_act_in_is_refused(name):
  make = lambda position, attention: tj.Architecture(
    DIMS, position, attention=attention, decoders=2
  )
  with pytest.raises(ValueError, match=f"^position=rope: {name} reads no .*alternate"):
    make("rope", name)
  assert make("sinusoidal", name) and make("rope", f"alternate({name}, mqa)")
