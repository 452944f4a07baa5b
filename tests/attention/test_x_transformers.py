"""Layers of x-transformers with one option each, as they were recorded.

Values, the gradient for tokens, and the norms of those for weights.
"""

import jax
import numpy as np
import pytest
from interpreted import interpreted
from test_recorded import recorded

from transformer_jax.attention import attentions
from transformer_jax.attention.cores import cores
from transformer_jax.axes import Dims
from transformer_jax.models import Architecture
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

  out, d_w, dx = run(w, there["inputs/x"], there["inputs/grad_out"])
  # Outputs and gradients reach some tens: float32 holds that many digits.
  size = max(1.0, np.abs(out).max(), np.abs(dx).max() / 10)
  for got, key, atol in ((out, "out", 3e-6), (dx, "dx", 2e-5)):
    want = there[f"outputs/{key}"]
    np.testing.assert_allclose(got / size, want / size, atol=atol, rtol=2e-6)
  for ours, (theirs, _) in names.items():
    want = there[f"outputs/grad_norm/{theirs}"]
    got = np.linalg.norm(np.ravel(d_w[ours]))
    np.testing.assert_allclose(got, want, rtol=2e-5, err_msg=theirs)
