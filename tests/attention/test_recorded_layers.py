"""Layers of other people's programs: MLA, differential attention and gates."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from interpreted import interpreted
from test_projections import apply, close, layer

from transformer_jax.axes import Dims
from transformer_jax.positions import coords

FOLDER = pathlib.Path(__file__).parents[2] / "third_party"


def recorded(name):
  with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as file:
    return dict(file)


def recorded_layer(name):
  """Returns weights, input, output and real tokens of the attention of layer 0."""
  there, start = recorded(f"transformers/whole_{name}"), "weights/model.layers.0."
  weights = {
    n.removeprefix(start + "self_attn.").removesuffix(".weight"): x
    for n, x in there.items()
    if n.startswith(start)
  }
  real = there["attention_mask"][-1:] == 1
  return weights, there["layer0_attn_in"], there["layer0_attn_out"], real


def equal_where_real(module, w, x, want, real):
  shapes = jax.eval_shape(module.init, jax.random.key(0), x, coords.padded(real))
  ours = {name: a.shape for name, a in shapes["params"].items()}
  assert ours == {name: a.shape for name, a in w.items()}
  # Outputs are as large as 2.5.
  close(apply(module, w, x, coords.padded(real))[real], want[real], atol=1e-5)


WIDTH_8 = Dims(V=97, D=32, H=4, F=64, L=24, K=8)


def test_latent_attention_of_deepseek_v2():
  there, *rest = recorded_layer("deepseek_v2_mla")
  split = lambda name, *shape: np.moveaxis(there[name].reshape(*shape), -1, 0)
  query, both = split("q_b_proj", 4, 16, 12), split("kv_b_proj", 4, 20, 16)
  down = there["kv_a_proj_with_mqa"].T
  w = {"query_down_DQ": there["q_a_proj"].T, "query_gain_Q": there["q_a_layernorm"]}
  w |= {"query_QHK": query[..., :8], "query_part_QHP": query[..., 8:]}
  w |= {"latent_DC": down[:, :16], "latent_gain_C": there["kv_a_layernorm"]}
  w |= {"key_part_DP": down[:, 16:], "key_CHK": both[..., :8]}
  w |= {"value_CHE": both[..., 8:], "out_HED": there["o_proj"].T.reshape(4, 12, 32)}
  spec = "mla(latent=16, part=8, queries=12, value=12)"
  equal_where_real(layer(spec, "rope(interleaved=True)", WIDTH_8), w, *rest)


def test_differential_attention_of_diffllama():
  there, *rest = recorded_layer("diffllama")
  # That program pairs heads 0, 2 and 1, 3; here neighbours are pairs.
  heads = lambda name: there[name].T.reshape(32, 4, 8)[:, [0, 2, 1, 3]]
  w = {"query_DHK": heads("q_proj"), "key_DHK": heads("k_proj")}
  w["value_DGE"] = heads("v_proj").reshape(32, 2, 16)
  w["out_HKD"] = there["o_proj"].T.reshape(4, 8, 32)
  for n, which in (("1", "first"), ("2", "second")):
    w[f"{which}_query_K"] = there[f"lambda_q{n}"]
    w[f"{which}_key_K"] = there[f"lambda_k{n}"]
  equal_where_real(layer("differential", "rope", WIDTH_8), w, *rest)


NAMES = {  # in x-transformers, [out, in], and here
  "to_v_gate.weight": "gate_DHE",
  "to_v_head_gate.weight": "gate_DH",
  "to_v_head_gate.bias": "gate_shift_H",
  "head_scale_params": "head_scale_H",
} | {f"to_{name[0]}.weight": f"{name}_DHK" for name in ("query", "key", "value")}


@pytest.mark.parametrize(
  "case,spec",
  [
    ("plain_causal", "multihead"),
    ("gate_values", "gated"),
    ("gate_value_heads", "gated(headwise=True, start=0)"),
    ("head_scale", "head_scale"),
  ],
)
def test_gates_of_x_transformers(case, spec):
  there, dims = recorded("x_transformers/gates"), Dims(V=8, D=16, H=2, F=8, L=10)
  module, real = layer(spec, dims=dims), there["real"] == 1
  at = coords.padded(real)
  at = at if case == "plain_causal" else at.bidirectional()
  names = NAMES | {"to_out.weight": "out_HKD"}
  sizes = dict(D=16, H=2, K=8, E=8)
  shape = lambda name: [sizes[axis] for axis in name.rpartition("_")[2]]
  w = {
    ours: there[f"{case}/{theirs}"].T.reshape(shape(ours))
    for theirs, ours in names.items()
    if f"{case}/{theirs}" in there
  }

  def loss(w, x):
    out = module.apply({"params": w}, x, at)[0] * real[..., None]
    return jnp.sum(out * there["grad_out"]), out

  run = interpreted(jax.value_and_grad(loss, (0, 1), has_aux=True))
  (_, out), (d_w, d_x) = run(w, there["x"])
  close(out, there[f"{case}/out"], atol=1e-5)
  close(d_x, there[f"{case}/dx"], atol=2e-5)
  for theirs, ours in names.items():
    if ours in w:
      want = there[f"{case}/grad_norm/{theirs}"]
      np.testing.assert_allclose(np.linalg.norm(d_w[ours]), want, rtol=1e-5)
