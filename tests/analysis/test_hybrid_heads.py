"""Heads and explanations of models with mixers: of their layers of attention alone."""

import functools

import jax
import numpy as np
import pytest
from random_parameters import of_model

import transformer_jax as tj
from transformer_jax.analysis import HeadAnalysis, explanation, head_statistics

HYBRID = "alternate(gated_delta, multihead, 2)"
PATH = "decoder/layer_1/attention"


@functools.cache
def analysis(attention):
  """Returns the heads of a model that was not trained, and its parameters."""
  task = tj.tasks.build("copy")
  batch = jax.jit(lambda key: task.batch(None, key, 4, 8))(jax.random.key(0))
  dims = tj.Dims(V=64, D=16, H=2, F=16, L=64)
  model = tj.Transformer(tj.Architecture(dims, "none", attention=attention, decoders=2))
  return HeadAnalysis(model, batch, batch_size=4), of_model(model, batch.input_BL)


def test_only_layers_of_attention_have_heads():
  heads, params = analysis(HYBRID)
  assert heads.heads(params) == {PATH: 2}
  assert explanation.layers(heads.model, params, heads.batch) == [PATH]
  chosen = {"previous": head_statistics.build("previous")}
  found = heads.statistics(chosen)(params).value_EH["previous"]
  assert found[PATH].shape == (4, 2) and np.isfinite(found[PATH]).all()
  assert all("layer_0" not in path for path in found)


@pytest.mark.parametrize("command", ["heads", "explain"])
def test_mixers_alone_are_refused_in_one_sentence(command):
  heads, params = analysis("gated_delta")
  with pytest.raises(ValueError, match=r"^gated_delta is a mixer, with none of .*weig"):
    if command == "heads":
      heads.heads(params)
    else:
      explanation.layers(heads.model, params, heads.batch)
