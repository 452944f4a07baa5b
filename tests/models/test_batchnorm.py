"""Batch norm: its papers' formula, running means, and where it is refused."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.configs import base
from experiments.runner.build import build
from experiments.setup.validate import ConfigError, resolve
from transformer_jax.models.feature_norms import norms
from transformer_jax.models.parameters import RUNNING, NormLayer
from transformer_jax.positions import coords
from transformer_jax.training import dispatch, sharding
from transformer_jax.training.pmap import pmap_step

SMALL = {
  "task": "blanks(copy(symbols=8))",
  "model.kind": "encoder",
  "train.length": 6,
  "train.batch_size": 8,
  "train.optimizer": "adamw(lr=1e-2, weight_decay=0.9)",
  "train.schedule": "constant",
  "model.width": 8,
  "model.heads": 2,
  "model.feedforward": 8,
  "model.layers": 1,
  "model.norm": "batchnorm(momentum=0.75)",
}
B, L, D = 3, 5, 4
LENGTHS = np.array([5, 2, 4])
REAL_BL = np.arange(L) < LENGTHS[:, None]


def trainer(**more):
  return build(resolve(base.get_config(), SMALL | more)).trainer


def features():
  """Returns x_BLD with NaN where there is no token, gains and shifts."""
  rng = np.random.default_rng(0)
  x_BLD = rng.normal(2.0, 3.0, (B, L, D)).astype(np.float32)
  x_BLD[~REAL_BL] = np.nan
  return x_BLD, *rng.normal(size=(2, D)).astype(np.float32)


def trained_layer(x_BLD, gain_D, shift_D):
  """Returns the output of a layer in training, and its running statistics."""
  layer = NormLayer(norms.build("batchnorm(momentum=0.75, epsilon=1e-3)"))
  params = layer.init(jax.random.key(0), x_BLD)["params"]
  params |= {"gain_D": gain_D, "shift_D": shift_D}
  at = coords.padded(jnp.asarray(REAL_BL))
  y_BLD, changed = layer.apply({"params": params}, x_BLD, at, mutable=RUNNING)
  return y_BLD, changed[RUNNING]


def test_it_is_the_formula_over_real_tokens():
  x_BLD, gain_D, shift_D = features()
  y_BLD, running = trained_layer(x_BLD, gain_D, shift_D)
  x_ND = x_BLD[REAL_BL].astype(np.float64)
  mean_D, var_D = x_ND.mean(0), x_ND.var(0)
  expected_ND = (x_ND - mean_D) / np.sqrt(var_D + 1e-3) * gain_D + shift_D
  np.testing.assert_allclose(y_BLD[REAL_BL], expected_ND, rtol=2e-5, atol=2e-6)
  np.testing.assert_allclose(running["running_mean_D"], mean_D / 4, rtol=1e-5)
  np.testing.assert_allclose(running["running_var_D"], 0.75 + var_D / 4, rtol=1e-5)


def test_it_is_that_of_flax_gradients_included():
  x_BLD, gain_D, shift_D = features()
  x_BLD = np.nan_to_num(x_BLD)
  weight_BL1 = REAL_BL[..., None] * np.arange(1.0, L + 1)[:, None]
  theirs = nn.BatchNorm(
    use_running_average=False, momentum=0.75, epsilon=1e-3, use_fast_variance=False
  )
  state = theirs.init(jax.random.key(0), x_BLD)["batch_stats"]

  def ours_loss(x_BLD, gain_D, shift_D):
    y_BLD, running = trained_layer(x_BLD, gain_D, shift_D)
    return jnp.sum(weight_BL1 * y_BLD**2), running

  def theirs_loss(x_BLD, gain_D, shift_D):
    variables = {"params": {"scale": gain_D, "bias": shift_D}, "batch_stats": state}
    mask = jnp.asarray(REAL_BL)[..., None]
    y_BLD, new = theirs.apply(variables, x_BLD, mask=mask, mutable="batch_stats")
    return jnp.sum(weight_BL1 * y_BLD**2), new["batch_stats"]

  def run(loss):
    return jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(
      x_BLD, gain_D, shift_D
    )

  ((ours, running), grads), ((expected, there), wanted) = map(
    run, (ours_loss, theirs_loss)
  )
  np.testing.assert_allclose(ours, expected, rtol=1e-5)
  for found, known in zip(grads, wanted, strict=True):
    np.testing.assert_allclose(found, known, rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(running["running_mean_D"], there["mean"], rtol=1e-5)
  np.testing.assert_allclose(running["running_var_D"], there["var"], rtol=1e-5)


def test_steps_replace_running_statistics_and_scores_read_them():
  # The first norm reads vectors of the table, so its statistics are known.
  made = trainer(**{"model.position": "none", "train.ema": 0.5})
  state = made.init(0)
  batch = made.batch((), state)
  after, metrics = jax.jit(made.step)(state, batch)
  assert RUNNING not in metrics
  table_VD = np.asarray(state.params["embedding_VD"]) * 8**0.5
  x_ND = table_VD[np.asarray(batch.input_BL)][np.asarray(batch.at.real_BL)]
  norm = after.params["encoder"]["layer_0"]["attention_norm"]
  np.testing.assert_allclose(norm["running_mean_D"], x_ND.mean(0) / 4, atol=1e-6)
  np.testing.assert_allclose(norm["running_var_D"], 0.75 + x_ND.var(0) / 4, rtol=1e-5)
  assert not np.array_equal(norm["gain_D"], np.ones(8))
  averaged = after.ema_params["encoder"]["layer_0"]["attention_norm"]
  assert np.any(np.asarray(averaged["running_mean_D"]) != 0)

  # A score is that of each text alone.
  model, variables = made.model, {"params": after.params}
  whole = model.apply(variables, batch.input_BL, batch.at)
  first = model.apply(
    variables, batch.input_BL[:1], jax.tree.map(lambda x: x[:1], batch.at)
  )
  np.testing.assert_allclose(whole[:1], first, atol=1e-5)


@pytest.mark.parametrize(
  "more",
  [{"model.scan": True}, pytest.param({"model.remat": "full"}, marks=pytest.mark.slow)],
)
def test_layers_in_a_scan_and_recomputed_ones_have_the_same_statistics(more):
  def one_step(**more):
    made = trainer(**{"model.layers": 1} | more)
    state = made.init(0)
    after, _ = jax.jit(made.step)(state, made.batch((), state))
    layers = after.params["encoder"]
    layer = layers.get("layer_0") or jax.tree.map(lambda x: x[0], layers["layers"])
    return layer["feedforward_norm"]["running_var_D"], layers["final_norm"]

  # The draws of a scan's parameters differ: only statistics of ones are compared.
  found, plain = one_step(**more), one_step()
  assert found[0].shape == plain[0].shape and np.all(found[0] != 1)
  if "model.remat" in more:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, plain)


def test_statistics_on_a_mesh_are_those_of_the_whole_batch():
  made = trainer()

  def train(mesh):
    program = dispatch.compile_steps(made, (0, 1), (), mesh, count=2)
    return program((), program.init())[0].params

  meshes = sharding.make_mesh(data=4, seed=2), sharding.make_mesh()
  found, expected = map(train, meshes)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), found, expected
  )
  mean_SD = expected["encoder"]["final_norm"]["running_mean_D"]
  assert not np.array_equal(mean_SD[0], mean_SD[1])  # each seed has its own


@pytest.mark.parametrize(
  "more, message",
  [
    ({"model.kind": "decoder", "task": "copy"}, "causal decoder would tell a token"),
    ({"model.kind": "encoder_decoder", "task": "pairs(copy)"}, "causal decoder"),
    ({"model.kind": "prefix_decoder", "task": "prefixed(copy)"}, "causal decoder"),
    ({"task": "masked('stdlib', packed=True)"}, "leave out packed"),
    ({"train.accumulate": 2}, "accumulate=2 computes parts of it"),
    ({"train.batch_size": 1}, "write a batch_size of 2 or more"),
    ({"model.head": "transform(norm='batchnorm')"}, "reads single tokens"),
    ({"model.norm": "batchnorm(momentum=1.0)"}, "momentum is 1.0; write 0 or more"),
  ],
)
def test_it_is_refused_in_one_sentence_where_it_is_undefined(more, message):
  with pytest.raises((ConfigError, ValueError), match=message):
    trainer(**more)


def test_it_is_refused_on_single_examples_and_in_pmap():
  made = trainer()
  with pytest.raises(ValueError, match="a device of pmap has a part of it"):
    pmap_step(made, jax.devices()[:2])
  with pytest.raises(ValueError, match="accumulate=2"):
    dataclasses.replace(made, accumulate=2)
  layer, x_BLD = NormLayer(norms.build("batchnorm")), jnp.ones((4, 3, D))
  variables = layer.init(jax.random.key(0), x_BLD)

  def each(x_LD):
    return layer.apply(variables, x_LD[None], mutable=RUNNING)

  with pytest.raises(ValueError, match="not their examples by jax.vmap"):
    jax.vmap(each)(x_BLD)


def test_a_batch_without_tokens_leaves_the_averages():
  norm = norms.build("batchnorm")
  params, no_BL = norm.init(D), jnp.zeros((B, L), bool)
  _, running = norm.measure(params, jnp.ones((B, L, D)), no_BL)
  for name, x in running.items():
    np.testing.assert_array_equal(x, params[name])
