"""Attention weights and hidden states of models of every kind."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import transformer_jax as tj
from transformer_jax.evaluation import activations
from transformer_jax.models.param_tree import flat, nested, stacked
from transformer_jax.models.recurrent.model import Recurrents

DIMS = tj.Dims(V=7, D=8, H=2, F=8, L=8)
TOKEN_BL, SOURCE_BL = jnp.array([[1, 2, 3], [4, 5, 6]]), jnp.array([[1, 2, 3, 4]] * 2)


def drawn(model, *reads):
  """Returns random parameters; compiles nothing."""
  random = np.random.default_rng(0)
  shapes = jax.eval_shape(model.init, jax.random.key(0), *reads)["params"]
  return jax.tree.map(lambda x: random.normal(size=x.shape).astype(x.dtype), shapes)


def test_layers_in_a_loop_have_the_states_of_layers_one_by_one():
  more = {
    "position": "alibi",
    "attention": "gqa(1)",
    "decoders": 2,
    "core": "blockwise",
  }
  one = tj.Transformer(tj.Architecture(DIMS, **more))
  loop = tj.Transformer(tj.Architecture(DIMS, **more, scan=True, remat=True))
  params = drawn(one, TOKEN_BL)
  for function in (activations.attention_weights, activations.hidden_states):
    found = function(loop, nested(stacked(flat(params))), TOKEN_BL)
    wanted = function(one, params, TOKEN_BL)
    assert [*found] == [*wanted] and len(found) == (
      2 if "weights" in str(function) else 4
    )
    jax.tree.map(np.testing.assert_array_equal, found, wanted)
  w_BHLM = activations.attention_weights(one, params, TOKEN_BL)
  assert w_BHLM["decoder/layer_1/attention"].shape == (2, 2, 3, 3)


def test_an_encoder_and_a_decoder_have_weights_of_their_own():
  arch = tj.Architecture(DIMS, "shaw", encoders=1, decoders=1)
  model = tj.Transformer(arch)
  reads = TOKEN_BL, None, SOURCE_BL
  params = drawn(model, *reads)
  weights = activations.attention_weights(model, params, *reads)
  shapes = {path: w_BHLM.shape[2:] for path, w_BHLM in weights.items()}
  assert shapes == {
    "encoder/layer_0/attention": (4, 4),
    "decoder/layer_0/attention": (3, 3),
    "decoder/layer_0/cross": (3, 4),
  }
  for w_BHLM in weights.values():
    np.testing.assert_allclose(w_BHLM.sum(axis=-1), 1, rtol=1e-5)
  assert not np.triu(weights["decoder/layer_0/attention"][0, 0], 1).any()
  assert weights["encoder/layer_0/attention"].min() > 0


@pytest.mark.parametrize(
  "link",
  ["bottleneck", pytest.param("luong", marks=pytest.mark.slow), "bahdanau"],
)
def test_a_recurrent_model_has_states_and_weights_where_it_attends(link):
  arch = tj.Architecture(DIMS, "none", attention="additive", encoders=1, decoders=1)
  model = Recurrents("gru", link)(arch)
  reads = TOKEN_BL, None, SOURCE_BL
  params = drawn(model, *reads)
  weights = activations.attention_weights(model, params, *reads)
  assert [*weights] == ([] if link == "bottleneck" else ["decoder/cross"])
  for w_BHLM in weights.values():
    assert w_BHLM.shape[2:] == (3, 4)
    np.testing.assert_allclose(w_BHLM.sum(axis=-1), 1, rtol=1e-5)
  states = activations.hidden_states(model, params, *reads)
  assert {path: x_BLD.shape for path, x_BLD in states.items()} == {
    "decoder/embedding": (2, 3, 8),
    "decoder/layer_0": (2, 3, 8),
    "decoder/output": (2, 3, 8),
    "encoder/embedding": (2, 4, 8),
    "encoder/layer_0": (2, 4, 8),
    "encoder/output": (2, 4, 8),
  }


def test_layer_10_comes_after_layer_9():
  model = tj.Transformer(tj.Architecture(DIMS, "none", decoders=11))
  shapes = jax.eval_shape(model.init, jax.random.key(0), TOKEN_BL)["params"]
  params = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
  layers = [f"decoder/layer_{n}" for n in range(11)]
  wanted = ["decoder/embedding", *layers, "decoder/output"]
  assert [*activations.hidden_states(model, params, TOKEN_BL)] == wanted
