"""Layers of x-transformers with one option each, as they were recorded.

Values, the gradient for tokens, and the norms of those for weights.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from interpreted import interpreted
from test_recorded import recorded

from transformer_jax.attention import attentions
from transformer_jax.attention.carry import Carry
from transformer_jax.attention.cores import cores
from transformer_jax.axes import Dims
from transformer_jax.models import Architecture, Transformer
from transformer_jax.models.transformer import Attention
from transformer_jax.positions import coords, positions

DIMS = Dims(V=8, D=16, H=2, F=8, L=10, K=8)
HEADS, HEADS_OF_C = (16, 2, 8), (6, 2, 8)
PROJECTIONS = {
  "query_DHK": ("to_q.weight", HEADS),
  "key_DHK": ("to_k.weight", HEADS),
  "value_DHK": ("to_v.weight", HEADS),
  "out_HKD": ("to_out.weight", (2, 8, 16)),
}
LATENT = {
  "query_DHK": PROJECTIONS["query_DHK"],
  "latent_DC": ("to_latent_kv.weight", (16, 6)),
  "key_CHK": ("to_k.weight", HEADS_OF_C),
  "value_CHE": ("to_v.weight", HEADS_OF_C),
  "out_HED": PROJECTIONS["out_HKD"],
}
FORGET = "data_dependent_alibi.to_forget_gates.0"
OPTIONS = {  # ours, further weights (ours: theirs, shape), the encoding
  "selective": ("selective", {}, "none"),
  "sparse_topk": ("topk(3)", {}, "none"),
  "laser": ("laser(4)", {}, "none"),
  "cog_signed": ("cog", {}, "none"),
  "sigmoid_causal": ("sigmoid(fixed=1)", {}, "none"),
  "forget_causal": (
    "multihead",
    {
      "position/forget_DH": (f"{FORGET}.weight", (16, 2)),
      "position/forget_shift_H": (f"{FORGET}.bias", (2,)),
    },
    "forgetting",
  ),
  "value_rmsnorm": (
    "value_norm(per_head=True, epsilon=1e-12)",
    {"value_gain_HE": ("value_rmsnorm.gamma", (2, 8))},
    "none",
  ),
  "k_rmsnorm": (
    "qk_norm(epsilon=1e-12, per_head=True, offset=1, queries=False)",
    {"key_gain_HK": ("k_rmsnorm.gamma", (2, 8))},
    "none",
  ),
  "output_gate": (
    "gated(source='output')",
    {"output_gate_HENE": ("to_output_gate.weight", (2, 8, 2, 8))},
    "none",
  ),
  "gate_headwise": (
    "gated(headwise=True)",
    {"gate_DH": ("to_v_gate.weight", (16, 2))},
    "none",
  ),
  "latent_kv": ("mla(latent=6, part=0, norm=False)", LATENT, "none"),
}


def read(name):
  """Returns inputs, weights and outputs of one layer, by their names."""
  found = {}
  for file in ("frontier_scores", "frontier_values"):
    for key, x in recorded(f"x_transformers/{file}").items():
      folder, _, rest = key.partition("/")
      if folder == "inputs" or rest.startswith(f"{name}/"):
        found[f"{folder}/{rest.removeprefix(name + '/')}"] = x
  return found


@pytest.mark.parametrize("name", OPTIONS)
def test_a_layer_with_an_option(name):
  spec, more, position = OPTIONS[name]
  there = read(name)
  names = more if more is LATENT else PROJECTIONS | more
  w = {
    ours: there[f"weights/{theirs}"].T.reshape(shape)
    if "gamma" not in theirs
    # Their gains have an axis of tokens between heads and features, and an offset.
    else there[f"weights/{theirs}"].reshape(shape) + (name == "value_rmsnorm")
    for ours, (theirs, shape) in names.items()
  }
  parts = positions.build(position), cores.build("dense"), attentions.build(spec)
  arch = Architecture(DIMS, *parts, decoders=1)
  layer = Attention(arch, *arch.layer("decoder", 0))
  at = coords.padded(there["inputs/key_padding_mask"] == 1)

  def forward(w, x):
    tree = {n: y for n, y in w.items() if "/" not in n}
    own = {n.partition("/")[2]: y for n, y in w.items() if "/" in n}
    tree |= {"position": own} if own else {}
    return layer.apply({"params": tree}, x, at)[0] * at.real_BL[..., None]

  @interpreted
  def run(w, x, g):
    out, pull = jax.vjp(forward, w, x)
    return out, *pull(g)

  compare(names, there, *run(w, there["inputs/x"], there["inputs/grad_out"]))


def compare(names, there, out, d_w, dx):
  """Compares an output, the gradient for x, and the norms of those for weights."""
  # Outputs and gradients reach some tens: float32 holds that many digits.
  size = max(1.0, np.abs(out).max(), np.abs(dx).max() / 10)
  for got, key, atol in ((out, "out", 3e-6), (dx, "dx", 2e-5)):
    want = there[f"outputs/{key}"]
    np.testing.assert_allclose(got / size, want / size, atol=atol, rtol=2e-6)
  for ours, (theirs, _) in names.items():
    want = there[f"outputs/grad_norm/{theirs}"]
    got = np.linalg.norm(np.ravel(d_w[ours]))
    np.testing.assert_allclose(got, want, rtol=2e-5, err_msg=theirs)


# Value residuals: a layer whose first values are given, and a whole decoder.


def test_values_mixed_with_those_of_the_first_layer():
  there = read("value_residual_bidirectional")
  names = PROJECTIONS | {
    "value_share_DH": ("to_value_residual_mix.0.weight", (16, 2)),
    "value_share_shift_H": ("to_value_residual_mix.0.bias", (2,)),
  }
  w = {
    ours: there[f"weights/{theirs}"].T.reshape(shape)
    for ours, (theirs, shape) in names.items()
  }
  variant = attentions.build("value_residual(mix='token')")
  parts = positions.build("none"), cores.build("dense"), variant
  arch = Architecture(DIMS, *parts, encoders=1)
  layer = Attention(arch, arch.position, variant)
  at = coords.padded(there["inputs/key_padding_mask"] == 1).bidirectional()
  first_BLHK = np.swapaxes(there["inputs/value_residual"], 1, 2)

  def forward(w, x):
    carry = Carry({"first_value": jnp.asarray(first_BLHK)})
    out = layer.apply({"params": w}, x, at, carry=carry)[0]
    return out * at.real_BL[..., None]

  @interpreted
  def run(w, x, g):
    out, pull = jax.vjp(forward, w, x)
    return out, *pull(g)

  compare(names, there, *run(w, there["inputs/x"], there["inputs/grad_out"]))


def decoder_params(w, layers):
  """Returns the parameters of a decoder of x-transformers by our names."""

  def norm(place):
    return {"gain_D": 1 + w[f"attn_layers.{place}.gamma"]}

  def layer(n):
    attention, feedforward = (f"layers.{2 * n + part}" for part in (0, 1))
    own = {k.removeprefix(f"attn_layers.{attention}.1."): x for k, x in w.items()}
    heads = {"query_DHK": "to_q", "key_DHK": "to_k", "value_DHK": "to_v"}
    attend = {k: own[f"{x}.weight"].T.reshape(24, 3, 8) for k, x in heads.items()}
    attend |= {"out_HKD": own["to_out.weight"].T.reshape(3, 8, 24)}
    # The first layer has no mix there, and does not use its own here.
    mix = "to_value_residual_mix.0"
    attend["value_share_DH"] = own[f"{mix}.weight"].T if n else jnp.zeros((24, 3))
    attend["value_share_shift_H"] = own[f"{mix}.bias"] if n else jnp.zeros(3)
    into, out = (f"attn_layers.{feedforward}.1.ff.{x}" for x in ("0.0", "2"))
    return {
      "attention": attend,
      "attention_norm": norm(f"{attention}.0.0"),
      "feedforward_norm": norm(f"{feedforward}.0.0"),
      "feedforward": {
        "in_DF": w[f"{into}.weight"].T,
        "in_shift_F": w[f"{into}.bias"],
        "out_FD": w[f"{out}.weight"].T,
        "out_shift_D": w[f"{out}.bias"],
      },
    }

  decoder = {f"layer_{n}": layer(n) for n in range(layers)}
  return {
    "embedding_VD": w["token_emb.emb.weight"],
    "output_DV": w["to_logits.weight"].T,
    "decoder": decoder | {"final_norm": norm("final_norm")},
  }


def test_a_decoder_with_value_residuals():
  there = recorded("x_transformers/whole_decoder_value_residual")
  dims = Dims(V=97, D=24, H=3, K=8, F=48, L=18)
  parts = {"position": "rope(interleaved=True)", "norm": "layernorm(shift=False)"}
  parts |= {"activation": "gelu(approximate=False)", "feedforward_bias": True}
  parts |= {"embedding": "tokens(power=0.0)", "core": "dense"}
  parts |= {"attention": "value_residual(mix='token')", "decoders": 3, "tied": False}
  model = Transformer(Architecture(dims, **parts))
  token_BL, real_BL = there["inputs/input_ids"], there["inputs/mask"] > 0

  def loss(w):
    params = {"params": decoder_params(w, 3)}
    logits_BLV = model.apply(params, token_BL, coords.consecutive(1, 18))
    log_BLV = jax.nn.log_softmax(logits_BLV[:, :-1])
    picked_BL = jnp.take_along_axis(log_BLV, token_BL[:, 1:, None], axis=-1)[..., 0]
    return -jnp.sum(picked_BL * real_BL[:, 1:]) / real_BL[:, 1:].sum(), logits_BLV

  w = {
    n.removeprefix("weights/"): x for n, x in there.items() if n.startswith("weights/")
  }
  w = {n: x for n, x in w.items() if "inv_freq" not in n}
  (value, logits_BLV), grads = interpreted(jax.value_and_grad(loss, has_aux=True))(w)
  np.testing.assert_allclose(value, there["outputs/loss"], rtol=1e-6)
  got_BLV = np.asarray(logits_BLV) * real_BL[..., None]
  np.testing.assert_allclose(got_BLV, there["outputs/logits"], atol=2e-5)
  for name, grad in grads.items():
    want = there[f"outputs/grad_norm/{name}"]
    np.testing.assert_allclose(np.linalg.norm(grad), want, rtol=5e-5, err_msg=name)
