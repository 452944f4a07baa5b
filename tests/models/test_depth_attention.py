"""A decoder of x-transformers whose sublayers attend to earlier states."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np

import transformer_jax as tj
from transformer_jax.positions import coords

FOLDER = pathlib.Path(__file__).parents[2] / "third_party" / "x_transformers"
DIMS = tj.Dims(V=61, D=24, H=3, K=8, F=48, L=18)
QUERY = {
  "down_DR": "to_query.1.down.weight",
  "up_RD": "to_query.1.up.weight",
  "inner_gain_D": "to_query.0.weight",
  "query_gain_D": "norm.weight",
  "key_gain_D": "to_keys.weight",
}


def below(arrays, prefix):
  return {n[len(prefix) :]: x for n, x in arrays.items() if n.startswith(prefix)}


def layer_of(w, n):
  """Returns the parameters of layer n; its two sublayers are layers there."""
  attend, forward = (below(w, f"layers.{2 * n + part}.") for part in (0, 1))
  projected = {
    f"{name}_DHK": attend[f"1.to_{name[0]}.weight"].T.reshape(24, 3, 8)
    for name in ("query", "key", "value")
  }
  residuals = (below(w, f"layer_integrators.{2 * n + part}.") for part in (0, 1))
  first, second = ({k: x[own].T for k, own in QUERY.items()} for x in residuals)
  return {
    "attention": projected | {"out_HKD": attend["1.to_out.weight"].T.reshape(3, 8, 24)},
    "attention_norm": {"gain_D": attend["0.0.gamma"] + 1},
    "attention_residual": first,
    "feedforward": {
      "in_DF": forward["1.ff.0.0.weight"].T,
      "in_shift_F": forward["1.ff.0.0.bias"],
      "out_FD": forward["1.ff.2.weight"].T,
      "out_shift_D": forward["1.ff.2.bias"],
    },
    "feedforward_norm": {"gain_D": forward["0.0.gamma"] + 1},
    "feedforward_residual": second,
  }


def ours(w):
  layers = {f"layer_{n}": layer_of(w, n) for n in range(2)}
  return {
    "embedding_VD": w["token_emb.emb.weight"],
    "output_DV": w["to_logits.weight"].T,
    "decoder": layers | {"final_norm": {"gain_D": w["final_norm.gamma"] + 1}},
  }


def test_a_whole_decoder_and_its_gradients():
  with np.load(FOLDER / "whole_decoder_attn_residual.npz", allow_pickle=False) as file:
    there = {name: jnp.asarray(x) for name, x in file.items()}
  model = tj.Transformer(
    tj.Architecture(
      DIMS,
      "rope(interleaved=True)",
      core="dense",
      norm="layernorm(shift=False)",
      norm_placement="state_attention(rank=4)",
      activation="gelu(approximate=False)",
      embedding="tokens(power=0)",
      feedforward_bias=True,
      tied=False,
      decoders=2,
    )
  )
  token_BL, real_BL = there["inputs/input_ids"], there["inputs/mask"] > 0

  def loss(w):
    at = coords.consecutive(1, 18)
    logits_BLV = model.apply({"params": ours(w)}, token_BL, at)
    log_BLV = jax.nn.log_softmax(logits_BLV[:, :-1])
    picked_BL = jnp.take_along_axis(log_BLV, token_BL[:, 1:, None], axis=-1)[..., 0]
    return -jnp.sum(picked_BL * real_BL[:, 1:]) / real_BL[:, 1:].sum(), logits_BLV

  w = below(there, "weights/")
  del w["rotary_pos_emb.inv_freq"]
  (value, logits_BLV), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(w)
  np.testing.assert_allclose(value, there["outputs/loss"], rtol=1e-6)
  np.testing.assert_allclose(
    logits_BLV * real_BL[..., None], there["outputs/logits"], atol=1e-5
  )
  wanted = below(there, "outputs/grad_norm/")
  wanted = {name.removeprefix("attn_layers."): x for name, x in wanted.items()}
  assert wanted.keys() == grads.keys()
  for name, want in wanted.items():
    # The first sublayer attends to one state: its query has no gradient but rounding.
    found = np.linalg.norm(grads[name])
    np.testing.assert_allclose(found, want, rtol=2e-5, atol=2e-6, err_msg=name)
