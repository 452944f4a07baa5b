"""Values of the one Transformer that some families of others need.

Whole recorded models have them too (`test_interop.py`); here is each by itself, against
NumPy in float64.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from interpreted import interpreted

from transformer_jax.axes import Dims
from transformer_jax.models import Architecture
from transformer_jax.models.feature_norms import norms
from transformer_jax.models.transformer import Attention
from transformer_jax.positions import bind, coords, positions

D, H, K, L = 12, 4, 6, 7
DIMS = Dims(V=8, D=D, H=H, F=8, L=L, K=K)
AT = coords.consecutive(1, L)
NONE = positions.build("none")
X = np.random.default_rng(0).normal(size=(1, L, D)).astype(np.float32)


def layer(attention, position=NONE, at=AT):
  """Returns a layer's attention, and parameters of random numbers for it."""
  arch = Architecture(DIMS, position, "dense", attention, decoders=1)
  module = Attention(arch, position, arch.attention)
  shared = bind(position, shared_of(position), DIMS)
  run = lambda params, x_BLD: module.apply({"params": params}, x_BLD, at, shared)[0]
  init = lambda key: module.init(key, X, at, shared)["params"]
  start = jax.eval_shape(init, jax.random.key(0))
  rng = np.random.default_rng(1)
  random = lambda x: rng.normal(size=x.shape).astype(np.float32) / 2
  return interpreted(run), jax.tree.map(random, start)


def shared_of(position):
  """Returns the parameters that all layers share."""
  start = interpreted(lambda key: position.init(key, DIMS))(jax.random.key(2))
  return {name: 20 * x for name, x in start.items() if not position.in_layer(name)}


def attend(q_LHK, k_MHK, v_MHK):
  """Returns what causal attention finds, o_LHK, in float64."""
  s_HLM = np.einsum("LHK,MHK->HLM", q_LHK, k_MHK) / np.sqrt(K)
  s_HLM = np.where(np.tri(L, dtype=bool), s_HLM, -np.inf)
  w_HLM = np.exp(s_HLM - s_HLM.max(-1, keepdims=True))
  return np.einsum("HLM,MHK->LHK", w_HLM / w_HLM.sum(-1, keepdims=True), v_MHK)


def projected(params, name, letters):
  w = np.asarray(params[f"{name}_D{letters}"], np.float64)
  return np.einsum("LD,DHK->LHK", X[0], w)


def out(params, o_LHK):
  return np.einsum("LHK,HKD->LD", o_LHK, params["out_HKD"])


def test_queries_keys_and_values_may_be_cut():
  run, params = layer("multihead(bias='in', clip=0.8)")
  q, k, v = (
    np.clip(projected(params, name, "HK") + params[f"{name}_shift_HK"], -0.8, 0.8)
    for name in ("query", "key", "value")
  )
  assert 0.2 < np.mean(np.abs(v) == 0.8) < 0.9
  found = run(params, X)[0]
  np.testing.assert_allclose(found, out(params, attend(q, k, v)), atol=1e-5)


@pytest.mark.parametrize("groups", [0, 2])
def test_queries_and_keys_of_all_heads_may_be_normed_together(groups):
  spec = f"gqa({groups})" if groups else "multihead"
  run, params = layer(f"{spec} + qk_norm(epsilon=1e-3, together=True)")
  h = "G" if groups else "H"
  assert params["query_gain_HK"].shape == (H, K)
  assert params[f"key_gain_{h}K"].shape == (groups or H, K)

  def normed(name, letters):
    x_LHK = projected(params, name, letters)
    square_L11 = np.mean(x_LHK**2, axis=(1, 2), keepdims=True)
    return x_LHK / np.sqrt(square_L11 + 1e-3) * params[f"{name}_gain_{letters}"]

  q_LHK, k_LGK = normed("query", "HK"), normed("key", f"{h}K")
  v_LGK = projected(params, "value", f"{h}K")
  repeat = lambda x_LGK: np.repeat(x_LGK, H // x_LGK.shape[1], axis=1)
  expected = out(params, attend(q_LHK, repeat(k_LGK), repeat(v_LGK)))
  np.testing.assert_allclose(run(params, X)[0], expected, atol=1e-5)


@pytest.mark.parametrize("scheduled", [False, True])
def test_deberta_may_project_its_table_as_the_layer_projects_tokens(scheduled):
  """The same numbers as with projections of its own that are copies."""
  at = AT.bidirectional()
  lent, own = (f"deberta(3, norm=True, shared={word})" for word in (True, False))
  if scheduled:
    lent, own = (f"by_layer(({spec}, none))" for spec in (lent, own))
  lent, own = (positions.build(spec).layer(0) for spec in (lent, own))
  run, params = layer("multihead", lent, at)
  assert "position" not in params
  copied, _ = layer("multihead", own, at)
  start = "e0_" if scheduled else ""
  copies = {
    f"{start}{name}_HDK": jnp.moveaxis(params[f"{name}_DHK"], 1, 0)
    for name in ("query", "key")
  }
  expected = copied(params | {"position": copies}, X)
  np.testing.assert_allclose(run(params, X), expected, atol=1e-6)


def test_deberta_names_attention_whose_projections_it_cannot_share():
  shared = positions.build("deberta(3, shared=True)")
  for spec in ("mla(part=0)", "gqa(2)"):
    with pytest.raises(ValueError, match=r"deberta\(shared=True\).*use multihead"):
      layer(spec, shared, AT.bidirectional())


def test_a_cut_needs_a_number_above_zero():
  with pytest.raises(ValueError, match="clip is -1; write a number above 0"):
    layer("gqa(2, clip=-1)")


def test_a_norm_may_have_no_parameters():
  norm = norms.build("layernorm(shift=False, gain=False)")
  assert norm.init(D) == {}
  x = X[0].astype(np.float64)
  centered = x - x.mean(-1, keepdims=True)
  expected = centered / np.sqrt(np.mean(centered**2, -1, keepdims=True) + 1e-5)
  np.testing.assert_allclose(norm({}, X[0]), expected, atol=1e-6)
