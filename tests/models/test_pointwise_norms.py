"""DyT, Derf and ScaleNorm: recorded layers and whole decoders, in NumPy."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer_jax.axes import Dims
from transformer_jax.models import Architecture, Transformer
from transformer_jax.models.feature_norms import norms
from transformer_jax.numpy_interpreter import evaluate
from transformer_jax.positions import coords

FOLDER = pathlib.Path(__file__).parents[2] / "third_party"
# {recorded name: ours}, of a layer and of a whole model of x-transformers.
LAYER = {"weight": "gain_D", "bias": "shift_D", "alpha": "alpha", "shift": "center"}
WHOLE = {"gamma": "gain_D", "beta": "shift_D", "s": "center"}
WHOLE |= {"pre_tanh_scale": "alpha", "alpha": "alpha"}
OFFSET = {"gain_D", "alpha"}  # x-transformers stores them less 1
NEAR = {"atol": 2e-6, "rtol": 2e-5}  # float32 sums in another order


def recorded(name):
  with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as file:
    return dict(file.items())


def below(there, folder):
  return {k.removeprefix(folder): x for k, x in there.items() if k.startswith(folder)}


@pytest.mark.parametrize("name", ["dyt", "derf"])
def test_a_layer_and_its_gradients(name):
  there, norm = recorded("dyt/dyt_derf"), norms.build(name)
  params = {
    LAYER[k]: x if k in ("weight", "bias") else x[0]
    for k, x in below(there, f"weights/{name}/").items()
  }
  assert {k: jnp.shape(x) for k, x in norm.init(12).items()} == {
    k: np.shape(x) for k, x in params.items()
  }

  def loss(params, x_BLD):
    y_BLD = norm(params, x_BLD)
    return jnp.sum(y_BLD * there["inputs/grad_out"]), y_BLD

  gradient = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
  (_, y_BLD), (own, dx_BLD) = evaluate(gradient, params, there["inputs/x"])
  np.testing.assert_allclose(y_BLD, there[f"outputs/{name}/y"], **NEAR)
  np.testing.assert_allclose(dx_BLD, there[f"outputs/{name}/dx"], **NEAR)
  for k, want in below(there, f"outputs/{name}/grad/").items():
    got = np.reshape(own[LAYER[k]], want.shape)
    np.testing.assert_allclose(got, want, **NEAR, err_msg=k)


def norm_of(weights, place):
  """Returns the parameters of a norm of x-transformers by our names."""
  own = {WHOLE[k]: x for k, x in below(weights, f"{place}.").items()}
  return {k: x + 1 if k in OFFSET else x for k, x in own.items()}


def layer_of(weights, n):
  """Returns the parameters of a layer, whose two parts are layers there."""
  attention, feedforward = (f"layers.{2 * n + part}" for part in (0, 1))
  q, k, v, o = (
    weights[f"{attention}.1.to_{x}.weight"].T for x in ("q", "k", "v", "out")
  )
  heads = {"query_DHK": q, "key_DHK": k, "value_DHK": v}
  attend = {name: x.reshape(24, 3, 8) for name, x in heads.items()}
  into, out = (f"{feedforward}.1.ff.{x}" for x in ("0.0", "2"))
  return {
    "attention": attend | {"out_HKD": o.reshape(3, 8, 24)},
    "attention_norm": norm_of(weights, f"{attention}.0.0"),
    "feedforward_norm": norm_of(weights, f"{feedforward}.0.0"),
    "feedforward": {
      "in_DF": weights[f"{into}.weight"].T,
      "in_shift_F": weights[f"{into}.bias"],
      "out_FD": weights[f"{out}.weight"].T,
      "out_shift_D": weights[f"{out}.bias"],
    },
  }


def ours(weights):
  """Returns the parameters of a decoder of x-transformers by our names."""
  decoder = {f"layer_{n}": layer_of(weights, n) for n in (0, 1)}
  return {
    "embedding_VD": weights["token_emb.emb.weight"],
    "output_DV": weights["to_logits.weight"].T,
    "decoder": decoder | {"final_norm": norm_of(weights, "final_norm")},
  }


@pytest.mark.parametrize("name", ["dyt", "derf"])
def test_a_whole_decoder_and_its_gradients(name):
  there = recorded(f"x_transformers/whole_decoder_{name}")
  dims = Dims(V=61, D=24, H=3, K=8, F=48, L=18)
  parts = {"position": "rope(interleaved=True)", "norm": name, "core": "dense"}
  parts |= {"activation": "gelu(approximate=False)", "feedforward_bias": True}
  parts |= {"embedding": "tokens(power=0.0)"}
  model = Transformer(Architecture(dims, **parts, decoders=2, tied=False))
  token_BL, real_BL = there["inputs/input_ids"], there["inputs/mask"] > 0

  def loss(weights):
    at = coords.consecutive(1, 18)
    logits_BLV = model.apply({"params": ours(weights)}, token_BL, at)
    log_BLV = jax.nn.log_softmax(logits_BLV[:, :-1])
    picked_BL = jnp.take_along_axis(log_BLV, token_BL[:, 1:, None], axis=-1)[..., 0]
    return -jnp.sum(picked_BL * real_BL[:, 1:]) / real_BL[:, 1:].sum(), logits_BLV

  gradient = jax.value_and_grad(loss, has_aux=True)
  weights = below(there, "weights/")
  del weights["rotary_pos_emb.inv_freq"]
  (value, logits_BLV), grads = evaluate(gradient, weights)
  np.testing.assert_allclose(value, there["outputs/loss"], rtol=1e-6)
  got_BLV = np.asarray(logits_BLV) * real_BL[..., None]
  np.testing.assert_allclose(got_BLV, there["outputs/logits"], atol=1e-5)
  wanted = below(there, "outputs/grad_norm/")
  assert wanted.keys() == grads.keys()
  for k, want in wanted.items():
    np.testing.assert_allclose(np.linalg.norm(grads[k]), want, **NEAR, err_msg=k)


def test_scalenorm_is_the_papers_formula():
  x_BLD = np.random.default_rng(0).normal(size=(2, 3, 8)).astype(np.float32)
  norm, params = norms.build("scalenorm"), {"gain": jnp.float32(3.0)}
  want_BLD = 3 * x_BLD / np.linalg.norm(x_BLD, axis=-1, keepdims=True)
  np.testing.assert_allclose(evaluate(norm, params, x_BLD), want_BLD, rtol=1e-6)
  assert norm.init(16) == {"gain": 4.0}
  slope = evaluate(jax.grad(lambda x: jnp.sum(norm(params, x))), np.zeros((1, 1, 8)))
  assert np.isfinite(slope).all()


@pytest.mark.parametrize("name", ["dyt", "derf", "scalenorm"])
def test_bfloat16_is_computed_in_float32(name):
  x_BLD = np.random.default_rng(0).normal(size=(2, 3, 8)).astype(np.float32)
  norm, x_BLD = norms.build(name), jnp.asarray(x_BLD, jnp.bfloat16)
  got_BLD = norm(norm.init(8), x_BLD)
  want_BLD = norm(norm.init(8), x_BLD.astype(jnp.float32)).astype(jnp.bfloat16)
  assert got_BLD.dtype == jnp.bfloat16
  np.testing.assert_array_equal(np.float32(got_BLD), np.float32(want_BLD))
