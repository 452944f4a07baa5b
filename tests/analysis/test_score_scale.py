"""The scale of scores: variance, entropy, gradients by NumPy and the derivation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fake_runs import BASE
from scipy import stats

from experiments.configs import sqrt_d
from experiments.runner.build import build
from experiments.score_scale import __main__ as score_scale
from experiments.score_scale import scale_figure, scale_measures
from experiments.score_scale.scale_measures import ScaleCurves
from experiments.setup import runs
from experiments.setup.validate import ConfigError, resolve, validate
from transformer_jax.analysis import scale_statistics as scale
from transformer_jax.models import capture


def test_measures_are_those_of_numpy():
  s_LM = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32) * 3
  mask_LM = np.tril(np.ones((3, 5), bool), 1)
  mask_LM[2, 1:] = False  # one key alone says nothing
  found = scale.of_scores(jnp.asarray(s_LM), jnp.asarray(mask_LM))
  rows = [s_LM[0, :2], s_LM[1, :3]]
  weights = [np.exp(row) / np.exp(row).sum() for row in rows]
  np.testing.assert_allclose(found.variance, np.concatenate(rows).var(), rtol=1e-5)
  part = [stats.entropy(w) / np.log(len(w)) for w in weights]
  np.testing.assert_allclose(found.entropy, np.mean(part), rtol=1e-5)
  norm = [np.linalg.norm(np.diag(w) - np.outer(w, w)) for w in weights]
  np.testing.assert_allclose(found.jacobian, np.mean(norm), rtol=1e-4)


@pytest.mark.parametrize("width", [4, 64])
@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_normal_queries_and_keys_have_the_derived_variance(width, power):
  found = scale.of_gaussian(jax.random.key(1), width, power, queries=1024)
  want = scale.derived_variance(width, power)
  assert want == {0.0: width, 0.5: 1.0, 1.0: 1 / width}[power]
  np.testing.assert_allclose(found.variance, want, rtol=0.05)
  if want < 0.3:  # log M - s2 / 2, with M = 64 keys
    np.testing.assert_allclose(1 - found.entropy, want / 2 / np.log(64), rtol=0.1)


def test_a_model_before_training():
  small = {"model.attention": "scale(0)", "model.head_width": 8, "model.layers": 1}
  small |= {"train.length": 8, "task": "copy(symbols=4)", "model.norm": "none"}
  trainer = build(resolve(BASE, small)).trainer
  layer = ("decoder", "layer_0", "attention")

  def measured(state, batch):
    """Returns the measures, queries and keys, and losses beside the parameters."""
    found = scale.of_model(trainer, state, batch)
    captured = capture.run(
      trainer.model, state.params, *batch.reads, want=("query", "key")
    )[1]
    loss = lambda params: trainer.loss(params, batch, state)[0]
    slope = functools.reduce(dict.get, layer, jax.grad(loss)(state.params))

    def moved(step):
      """Along the gradient of the projections the loss grows by their norm."""
      params = jax.tree.map(lambda x: x, state.params)
      own = functools.reduce(dict.get, layer, params)
      for name in ("query_DHK", "key_DHK"):
        own[name] = own[name] + step * slope[name] / found.gradient
      return loss(params)

    return found, captured, moved(0.02) - moved(-0.02)

  state = jax.jit(trainer.init)(0)
  batch = trainer.task.batch({}, jax.random.key(0), 4, 8)
  found, captured, rise = jax.jit(measured)(state, batch)
  (q_BLHK,), (k_BMHK,) = (captured[x].values() for x in ("query", "key"))
  s_BHLM = np.einsum("blhk,bmhk->bhlm", q_BLHK, k_BMHK)
  causal = np.tril(np.ones(s_BHLM.shape[-2:], bool))
  causal[0] = False
  np.testing.assert_allclose(found.variance, s_BHLM[:, :, causal].var(), rtol=1e-4)
  np.testing.assert_allclose(rise / 0.04, found.gradient, rtol=0.05)


def test_the_figure_and_the_table_have_every_width(tmp_path):
  values = {name: np.ones((2, 2)) for name in scale_figure.PANELS}
  curves = [
    ScaleCurves(label, power, [4, 64], values, values, {4: [2.0, 3.0]}, "bits_per_byte")
    for label, power in (("1/sqrt(d)", 0.5), ("none", 0.0))
  ]
  lines = [*scale_figure.lines(curves)]
  assert len(lines) == 2 + 4 and lines[0].endswith("| bits per byte |")
  assert lines[5] == "| none | 64 | 64.000 | 1.000 | 1.000 | 1.000 | 1.000 | – |"
  kinds = {path.suffix for path in scale_figure.write(tmp_path / "new", curves)}
  assert kinds == {".png", ".svg", ".pdf", ".csv"}


def test_the_plan_is_valid():
  todo = runs.expand(sqrt_d.sweep(), sqrt_d.get_config(), {})
  assert len(todo) == 12
  for each in todo:
    validate(each.config)


def test_another_variant_is_refused():
  with pytest.raises(
    ConfigError, match=r"score_scale compares runs with model\.attention"
  ):
    scale_measures._power(resolve(BASE, {"model.attention": "multihead"}))


@pytest.mark.parametrize("text", ["", "0", "wide", "-4", "4.5"])
def test_a_width_that_is_none_is_refused(text):
  with pytest.raises(ConfigError, match="^--widths=.*: write whole numbers from 1"):
    score_scale._width(text)


def test_a_folder_without_a_sweep_is_one_sentence(commands, tmp_path):
  for command in ("experiments.score_scale", "experiments.gradients"):
    words = f"--workdir={tmp_path}", "--allow=my_file:Mine"
    done = commands.run(command, *words, cwd=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert str(tmp_path) in done.stderr
