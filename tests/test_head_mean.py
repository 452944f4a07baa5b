"""The head that reads the mean of the tokens, by a loop over them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.build import build
from experiments.config import ConfigError, resolve
from experiments.configs import base
from transformer_jax.models.ends import Mean, mean
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
  params = jax.jit(model.init)(jax.random.key(1), token_BL, at)["params"]
  params["head"]["shift_V"] = jnp.array([0.5, -1.0, 2.0])
  read = {"params": params}, token_BL, at

  def all_of_it():
    hidden = model.apply(*read, method="hidden")
    return model.apply(*read), hidden, model.apply(*read, method="encode")[0]

  logits_BLV, (x_BLF, output_VF), x_BLD = jax.device_get(jax.jit(all_of_it)())
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


def test_it_is_chosen_by_one_key():
  assert built().trainer.model.arch.head == Mean(bias=True)
  task = "tagging('none.tsv', tokenizer='byte', classes=3)"
  with pytest.raises(ConfigError, match=r"write --config\.model\.head=linear"):
    built(task=task)
  task = TINY["task"].replace("classes", "kind='decoder', classes")
  with pytest.raises(ValueError, match="have not read what follows them"):
    built(task=task, model__kind="decoder")
  images = "images('digits', patch=2)"
  patches = {"model__embedding": "patches(size=2)", "train__length": 4}
  assert built(task=images, **patches).trainer.model.arch.head.whole
