"""Short convolutions: recorded numbers, and attention with them read in every way."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_parameters import of_model

import transformer_jax as tj
from transformer_jax.attention import attentions
from transformer_jax.attention.convolution import Recent, convolve
from transformer_jax.models import empty_cache
from transformer_jax.models.transformer import Attention
from transformer_jax.positions import coords
from transformer_jax.positions.shared.short_convolution import mix, neighbours
from transformer_jax.spec import SpecError

FILE = pathlib.Path(__file__).parents[2] / "third_party/transformers/short_conv.npz"
DIMS = tj.Dims(V=12, D=16, H=2, F=16, L=32)
TOKENS = np.random.default_rng(0).integers(0, 11, (2, 20))
CASES = {
  "linear": "short_conv(4, of='q')",
  "silu": "short_conv(4, 'silu', of='q')",
  "bias_silu": "short_conv(4, 'silu', bias=True, of='q')",
  "canon_residual": "short_conv(4, residual=True, of='q')",
  "canon_silu_no_residual": "short_conv(4, 'silu', of='q')",
}
close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)


@functools.cache
def recorded():
  with np.load(FILE, allow_pickle=False) as file:
    return {name: jnp.asarray(x) for name, x in file.items()}


def heads(x_BLC):
  return x_BLC[:, :, None]


def run(spec, x_BLC, params, at, recent=None):
  """Returns the convolved queries of one head, and what a cache keeps."""
  variant = attentions.build(spec)
  sums, recent = convolve({"query": heads(x_BLC)}, variant.taps(params), at, recent)
  found = variant.convolved(params, "query", heads(x_BLC), sums["query"])
  return found[:, :, 0], recent


def params_of(weight_CN, bias_C):
  """Returns parameters for recorded ones, whose last tap is of the token itself."""
  return {"query_mix_HKN": weight_CN[None, :, ::-1], "query_mix_shift_HK": bias_C[None]}


@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_those_recorded(case):
  there, at = recorded(), coords.consecutive(1, 9)
  names = ["x", "weight"] + ["bias"] * case.startswith("bias")
  given = {name: there[f"inputs/{name}"] for name in ("x", "weight", "bias")}

  def total(changed):
    all_ = given | changed
    y_BLC, _ = run(CASES[case], all_["x"], params_of(all_["weight"], all_["bias"]), at)
    return jnp.vdot(y_BLC, there["inputs/grad_out"]), y_BLC

  grad = jax.jit(jax.grad(total, has_aux=True))
  slopes, y_BLC = grad({name: given[name] for name in names})
  close(y_BLC, there[f"outputs/{case}/y"])
  for name in names:
    close(slopes[name], there[f"outputs/{case}/d{name}"], err_msg=name)


def test_a_step_is_the_one_recorded():
  there = recorded()
  state_BNC = jnp.swapaxes(there["inputs/state"], 1, 2)
  recent = Recent({"query": heads(state_BNC)}, coords.consecutive(2, 3))
  params = params_of(there["inputs/weight"], there["inputs/bias"])
  x_B1C, at = there["inputs/x"][:, :1], coords.consecutive(1, 1, 3)
  y_B1C, after = run(CASES["silu"], x_B1C, params, at, recent)
  close(y_B1C, there["outputs/step/y"])
  after_BNC = after.inputs["query"][:, :, 0]
  close(jnp.swapaxes(after_BNC, 1, 2), there["outputs/step/state"])


def by_loops(x_LC, taps_CN, order_L):
  """Returns sums of the tokens before each; padding, of order -1, is none."""
  out_LC, text = np.zeros_like(x_LC), []
  for i, order in enumerate(order_L):
    if order < 0:
      continue
    text = [*text[: int(order)], x_LC[i]] if order else [x_LC[i]]
    out_LC[i] = sum(
      x_C * taps_CN[:, n] for n, x_C in enumerate(text[::-1][: taps_CN.shape[1]])
    )
  return out_LC


def by_texts(x_BLC, taps_CN, at):
  orders = np.broadcast_to(at.order_BL, x_BLC.shape[:2])
  each = zip(np.asarray(x_BLC, np.float64), orders, strict=True)
  return np.stack([by_loops(x_LC, taps_CN, order_L) for x_LC, order_L in each])


ROWS = {
  "holes": coords.padded(np.random.default_rng(1).random((3, 17)) < 0.7),
  "texts": coords.packed(jnp.array([[0] + [1] * 5 + [2] + [3] * 8 + [0] * 2] * 3)),
}


@pytest.mark.parametrize("kind", ROWS)
def test_sums_and_gradients_in_rows_of_texts_and_padding(kind):
  at, random = ROWS[kind], np.random.default_rng(2)
  x_BLC, g_BLC = random.normal(size=(2, 3, 17, 4))
  taps_CN = random.normal(size=(4, 5))

  def run(x_BLC):
    return mix(x_BLC, taps_CN, neighbours(at, 5))

  found_BLC, back = jax.vjp(run, jnp.asarray(x_BLC))
  close(found_BLC, by_texts(x_BLC, taps_CN, at))
  # The sums are linear: their gradient has the products with all unit vectors.
  slope_BLC = np.zeros_like(x_BLC)
  for j in range(17):
    one_BLC = np.zeros_like(x_BLC)
    one_BLC[:, j] = 1
    slope_BLC[:, j] = np.sum(by_texts(one_BLC, taps_CN, at) * g_BLC, axis=1)
  close(back(jnp.asarray(g_BLC, jnp.float32))[0], slope_BLC)


def test_attention_is_plain_after_the_sums():
  """The layer in NumPy: project, sum by loops, bias and SiLU, softmax, project."""
  model, params = model_of("short_conv(3, 'silu', residual=True, bias=True)", "none")
  p = jax.tree.map(np.asarray, params["decoder"]["layer_0"]["attention"])
  x_BLD = np.random.default_rng(3).normal(size=(1, 9, 16))
  layer = Attention(model.arch, *model.arch.layer("decoder", 0))
  at = coords.consecutive(1, 9)
  found, *_ = layer.apply({"params": p}, jnp.asarray(x_BLD, jnp.float32), at)
  want_LD = np.zeros((9, 16))
  for h in range(2):
    got = {}
    for name in ("query", "key", "value"):
      axes = {"query": "HK", "key": "GK", "value": "GE"}[name]
      x_LK = x_BLD[0] @ p[f"{name}_DHK"][:, h]
      sums_LK = by_loops(x_LK, p[f"{name}_mix_{axes}N"][h], range(9))
      sums_LK = sums_LK + p[f"{name}_mix_shift_{axes}"][h]
      got[name] = x_LK + sums_LK / (1 + np.exp(-sums_LK))
    for i in range(9):
      weights_M = np.exp(got["query"][i] @ got["key"][: i + 1].T / np.sqrt(8))
      mixed_K = weights_M @ got["value"][: i + 1] / weights_M.sum()
      want_LD[i] += mixed_K @ p["out_HKD"][h]
  close(found[0], want_LD)


LAYERS = [
  "gqa(1) + short_conv(4, 'silu', residual=True, bias=True)",
  "mla(latent=8, part=4) + short_conv(3, of='q')",
  "alternate(short_conv(2, of='kv') + window(5), gated_conv)",
]


def model_of(spec, position="rope", **more):
  arch = tj.Architecture(DIMS, position, attention=spec, decoders=2, **more)
  model = tj.Transformer(arch)
  return model, of_model(model, TOKENS[:, :4])


def decoded(model, params, cuts):
  """Returns logits of all tokens, some at a time."""
  step = jax.jit(
    lambda token, at, cache: model.apply(
      {"params": params}, token, at, None, cache, method="decode"
    )
  )
  cache, found = empty_cache(model.arch, 2, 20), []
  for start, end in zip(cuts[:-1], cuts[1:], strict=True):
    at = coords.consecutive(1, end - start, start)
    out, cache = step(TOKENS[:, start:end], at, cache)
    found.append(out)
  return jnp.concatenate(found, axis=1)


@pytest.mark.parametrize("spec", LAYERS)
def test_decoding_and_packing_are_a_full_pass(spec):
  model, params = model_of(spec)
  run = jax.jit(lambda p, *a: model.apply({"params": p}, *a))
  whole = run(params, TOKENS)
  close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)
  close(decoded(model, params, (0, 9, 10, 11, 20)), whole)
  row = jnp.array([[1] * 9 + [2] * 9 + [0] * 2])
  packed = run(params, TOKENS[:1], coords.packed(row))
  for first, end in ((0, 9), (9, 18)):
    close(packed[:, first:end], run(params, TOKENS[:1, first:end]))


REFUSED = {
  "mla + short_conv(4)": "mla caches no keys .* write short_conv",
  "differential + short_conv": "differential caches no keys",
  "short_conv + short_conv": "both decide what is convolved",
  "cross_layer(gqa(2) + short_conv)": "gqa . short_conv mixes .* have no cache",
  "short_conv(0)": "kernel is 0; write how many tokens",
  "short_conv(4, 'relu')": "activation is 'relu'; write none or silu",
  "short_conv(of='x')": "of is 'x'; write which",
  "short_conv(of='')": "of is ''; write which",
}


@pytest.mark.parametrize("spec", REFUSED)
def test_what_has_no_meaning_is_refused_when_built(spec):
  with pytest.raises(SpecError, match=REFUSED[spec]):
    attentions.build(spec)


def test_an_encoder_has_no_earlier_tokens():
  arch = tj.Architecture(DIMS, "rope", attention="short_conv", encoders=1)
  with pytest.raises(ValueError, match="^short_conv in encoder .* use it in a decoder"):
    tj.Transformer(arch).init(jax.random.key(0), TOKENS)
