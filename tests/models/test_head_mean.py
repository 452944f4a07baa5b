"""The head that reads the mean of the tokens, by a loop over them."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.configs import base
from experiments.runner.build import build
from experiments.setup.validate import ConfigError, resolve
from transformer_jax.axes import Dims
from transformer_jax.models.heads import MeanHead, heads, mean
from transformer_jax.numpy_interpreter import evaluate
from transformer_jax.positions import coords

TINY = {
  "task": "classification('none.tsv', tokenizer='byte', classes=3)",
  "model.kind": "encoder", "model.width": 8, "model.layers": 1, "model.heads": 2,
  "model.feedforward": 8, "model.core": "dense", "train.length": 6,
  "model.head": "mean(bias=True)",
}  # fmt: skip


def built(**changes):
  more = {key.replace("__", "."): value for key, value in changes.items()}
  return build(resolve(base.get_config(), TINY | more))


def test_logits_are_those_of_the_mean():
  model = built().trainer.model
  token_BL = jax.random.randint(jax.random.key(0), (3, 6), 5, 50)
  real_BL = np.array([[0, 0, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [1] * 6], bool)
  at = coords.padded(jnp.asarray(real_BL))
  params = evaluate(model.init, jax.random.key(1), token_BL, at)["params"]
  params["head"]["shift_V"] = jnp.array([0.5, -1.0, 2.0])
  read = {"params": params}, token_BL, at

  def all_of_it():
    hidden = model.apply(*read, method="hidden")
    return model.apply(*read), hidden, model.apply(*read, method="encode")[0]

  logits_BLV, (x_BLF, output_VF), x_BLD = evaluate(all_of_it)
  for row in range(3):
    total, count = np.zeros(8), 0
    for place in range(6):
      if real_BL[row, place]:
        total, count = total + x_BLD[row, place].astype(np.float64), count + 1
    want_V = total / count @ np.asarray(params["output_DV"]) + [0.5, -1.0, 2.0]
    for place in range(6):
      np.testing.assert_allclose(logits_BLV[row, place], want_V, atol=1e-5)
  np.testing.assert_allclose(x_BLF @ output_VF.T, logits_BLV, atol=1e-5)


def test_a_row_without_tokens_has_a_mean_of_zero():
  x_BLD = np.arange(12.0, dtype=np.float32).reshape(2, 3, 2)
  real_BL = np.array([[True, False, True], [False] * 3])
  np.testing.assert_array_equal(mean(x_BLD, real_BL), [[2.0, 3.0], [0.0, 0.0]])
  half = mean(jnp.asarray(x_BLD, jnp.bfloat16), real_BL)
  assert half.dtype == jnp.bfloat16


def test_a_dense_layer_may_read_the_mean_and_add_nothing():
  """ModernBERT's head: norm(gelu(W mean)), without the vectors that BERT's adds."""
  norm = "norm='layernorm(shift=False)'"
  head = heads.build(f"transform(pooled=True, dense_bias=False, bias=False, {norm})")
  dims = Dims(V=3, D=4, H=1, F=4, L=3)
  params = head.init(jax.random.key(0), dims)
  assert params.keys() == {"dense_DD", "norm_gain_D"}
  at = coords.padded(np.array([[True, True, False]]))
  x_BLD = np.random.default_rng(0).normal(size=(1, 3, 4)).astype(np.float32)
  h_D = x_BLD[0, :2].astype(np.float64).mean(0) @ np.asarray(params["dense_DD"])
  h_D = h_D * [(1 + math.erf(x / math.sqrt(2))) / 2 for x in h_D]
  expected_D = (h_D - h_D.mean()) / np.sqrt(h_D.var() + 1e-5)
  for found_D in head.states(params, head.pool(x_BLD, at))[0]:
    np.testing.assert_allclose(found_D, expected_D, atol=1e-5)


def test_it_is_chosen_by_one_key():
  assert built().trainer.model.arch.head == MeanHead(bias=True)
  task = "tagging('none.tsv', tokenizer='byte', classes=3)"
  with pytest.raises(ConfigError, match=r"write --config\.model\.head=linear"):
    built(task=task)
  task = TINY["task"].replace("classes", "kind='decoder', classes")
  with pytest.raises(ValueError, match="have not read what follows them"):
    built(task=task, model__kind="decoder")
  images = "images('digits', patch=2)"
  patches = {"model__embedding": "patches(size=2)", "train__length": 4}
  assert built(task=images, **patches).trainer.model.arch.head.pooled
  pooled = built(model__head="transform(pooled=True)")
  assert pooled.trainer.model.arch.head.pooled
  assert not built(model__head="transform").trainer.model.arch.head.pooled
