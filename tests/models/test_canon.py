"""Canon layers: the formula at each place, and every way to read a text."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles.mixers import convolved, silu
from random_parameters import of_model

import transformer_jax as tj
from transformer_jax.models import empty_cache
from transformer_jax.models.canon import ConvolvedCache
from transformer_jax.positions import coords
from transformer_jax.spec import SpecError
from transformer_jax.training import sharding

DIMS = tj.Dims(V=12, D=16, H=2, F=16, L=32)
TOKENS = np.random.default_rng(0).integers(0, 11, (2, 20))
close = functools.partial(np.testing.assert_allclose, rtol=2e-4, atol=2e-4)


def model_of(convolution, **more):
  parts = {"position": "none", "activation": "swiglu", "decoders": 2} | more
  model = tj.Transformer(tj.Architecture(DIMS, convolution=convolution, **parts))
  return model, of_model(model, TOKENS[:, :4])


def logits(model, params, *args):
  return jax.jit(lambda p, *a: model.apply({"params": p}, *a))(params, *args)


def rms(x_LD, p):
  return x_LD / np.sqrt(np.mean(x_LD**2, -1, keepdims=True) + 1e-6) * p["gain_D"]


def along(options, p, x_LF):
  """Returns a Canon layer of x_LF, whose parameters end in `mix_.N`."""
  taps = next(x for name, x in p.items() if name.endswith("N"))
  sums = convolved(x_LF, taps) + next((x for n, x in p.items() if "shift" in n), 0.0)
  sums = silu(sums) if options.activation == "silu" else sums
  return x_LF + sums if options.residual else sums


def layer_by_hand(options, p, x_LD):
  """Returns a decoder layer with SwiGLU and the four places, one head at a time."""
  add = functools.partial(along, options)
  read_LD = add(p["attention_canon"], rms(x_LD, p["attention_norm"]))
  att, out_LD = p["attention"], np.zeros_like(x_LD)
  for h in range(DIMS.H):
    q, k, v = (
      add(
        {n: x[h] for n, x in att.items() if n.startswith(f"{name}_mix")},
        read_LD @ att[f"{name}_DHK"][:, h],
      )
      for name in ("query", "key", "value")
    )
    for i in range(len(x_LD)):
      w_M = np.exp(k[: i + 1] @ q[i] / np.sqrt(DIMS.K))
      out_LD[i] += w_M @ v[: i + 1] / w_M.sum() @ att["out_HKD"][h]
  x_LD = x_LD + out_LD
  ff = p["feedforward"]
  read_LD = add(p["feedforward_canon"], rms(x_LD, p["feedforward_norm"]))
  up, gate = (add(ff[f"{n}_canon"], read_LD @ ff[f"{n}_DF"]) for n in ("in", "gate"))
  return x_LD + (silu(gate) * up) @ ff["out_FD"]


@pytest.mark.parametrize(
  "spec", ["canon('ABCD')", "canon('ABCD', 3, 'silu', residual=False, bias=True)"]
)
def test_a_layer_is_what_the_paper_says(spec):
  model, params = model_of(spec, decoders=1)
  p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
  table_VD = next(x for x in jax.tree.leaves(p) if x.shape == (12, 16))
  x_LD = 4.0 * table_VD[TOKENS[0]]  # sqrt(D)
  x_LD = layer_by_hand(model.arch.convolution, p["decoder"]["layer_0"], x_LD)
  want = rms(x_LD, p["decoder"]["final_norm"]) @ table_VD.T
  close(logits(model, params, TOKENS[:1])[0], want)


CASES = {
  "canon('ABCD')": {},
  "canon('AD', 2, bias=True)": {"attention": "alternate(gated_conv, gqa(1))"},
}


@pytest.mark.parametrize("spec", CASES)
def test_decoding_and_packing_are_a_full_pass(spec):
  model, params = model_of(spec, **CASES[spec])
  whole = logits(model, params, TOKENS)
  step = jax.jit(
    lambda token, at, cache: model.apply(
      {"params": params}, token, at, None, cache, method="decode"
    )
  )
  cache, found = empty_cache(model.arch, 2, 20), []
  assert all(isinstance(own, ConvolvedCache) for own in cache)
  for start, end in ((0, 9), (9, 10), (10, 20)):
    at = coords.consecutive(1, end - start, start)
    out, cache = step(TOKENS[:, start:end], at, cache)
    found.append(out)
  close(jnp.concatenate(found, axis=1), whole)
  row = jnp.array([[1] * 9 + [2] * 9 + [0] * 2])
  packed = logits(model, params, TOKENS[:1], coords.packed(row))
  for first, end in ((0, 9), (9, 18)):
    close(packed[:, first:end], logits(model, params, TOKENS[:1, first:end]))


def test_one_program_for_all_layers_recomputed_and_on_a_mesh():
  model, params = model_of("canon('ABCD')", scan=True, remat="full")
  loss = lambda p: jnp.sum(jnp.sin(model.apply({"params": p}, TOKENS)))
  want = jax.jit(jax.value_and_grad(loss))(params)
  flat = tj.Transformer(dataclasses.replace(model.arch, scan=False, remat="none"))
  layers = params["decoder"]["layers"]
  decoder = {name: x for name, x in params["decoder"].items() if name != "layers"}
  for n in range(2):
    decoder[f"layer_{n}"] = jax.tree.map(lambda x, n=n: x[n], layers)
  each = logits(flat, params | {"decoder": decoder}, TOKENS)
  close(jnp.sum(jnp.sin(each)), want[0])
  cache = empty_cache(model.arch, 2, 20)
  decode = lambda p, c: model.apply(
    {"params": p}, TOKENS, coords.consecutive(1, 20), None, c, method="decode"
  )
  close(jax.jit(decode)(params, cache)[0], each)
  mesh = sharding.make_mesh(sequence=2, tensor=2, fsdp=2)
  with jax.set_mesh(mesh):
    placed = jax.device_put(params, sharding.split(mesh, params))
    found = jax.jit(jax.value_and_grad(loss))(placed)
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True):
    close(a, b)


REFUSED = {
  "encoders": ({"encoders": 1, "decoders": 0}, "an encoder or a prefix looks both"),
  "prefix": ({"prefix": True}, "an encoder or a prefix looks both"),
  "mla": ({"attention": "mla(latent=8, part=2)"}, "place B: mla .* leave B out"),
  "mixers": ({"attention": "gated_delta"}, "no layer has attention for place B"),
  "units": ({"dims": dataclasses.replace(DIMS, F=0)}, "leave C and D out"),
  "experts": ({"feedforward_kind": "experts(2, 1)"}, "leave D out"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_place_that_no_layer_has_is_refused(case):
  more, message = REFUSED[case]
  parts = {"dims": DIMS, "position": "none", "decoders": 2} | more
  with pytest.raises(ValueError, match=rf"^convolution=canon\('ABCD'\): .*{message}"):
    tj.Architecture(convolution="canon", **parts)


@pytest.mark.parametrize("places", ["", "E", "AA", "abcd"])
def test_unknown_places_are_refused(places):
  with pytest.raises(SpecError, match="canon: places is .* write which of ABCD"):
    tj.Architecture(DIMS, "none", decoders=1, convolution=f"canon({places!r})")


def test_layers_without_a_convolution_are_as_they_were():
  plain = tj.Architecture(DIMS, "none", decoders=1)
  params = jax.eval_shape(tj.Transformer(plain).init, jax.random.key(0), TOKENS)
  assert not any(
    "canon" in jax.tree_util.keystr(path)
    for path, _ in jax.tree_util.tree_leaves_with_path(params)
  )
  assert not isinstance(empty_cache(plain, 1, 4)[0], ConvolvedCache)
