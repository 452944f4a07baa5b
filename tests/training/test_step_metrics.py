"""Step metrics: their numbers, and that training has the same bits with them."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_accumulate import SMALL
from test_training import close

from experiments.configs import base
from experiments.reporting.layer_curves import by_layer
from experiments.reporting.loaded_run import LoadedRun
from experiments.runner import train
from experiments.runner.build import build
from experiments.setup.identity import run_id
from experiments.setup.validate import ConfigError, flatten, resolve, validate
from transformer_jax.models.param_tree import flat
from transformer_jax.positions import coords
from transformer_jax.training import dispatch, events, metrics_log, sharding, step_look
from transformer_jax.training.step_metrics import step_metrics
from transformer_jax.training.step_metrics.base import PassArrays, StepArrays

EVERY = tuple(step_metrics)
OTHERS = ("update_norm(relative=True)", "activation_rms(update=True)")
BUILT = tuple(map(step_metrics.build, EVERY + OTHERS))
CHANGES = SMALL | {"model.layers": 2, "model.dropout": 0.25}
CHANGES |= {
  "train.steps": 4,
  "train.steps_per_dispatch": 2,
  "train.schedule": "constant",
}


def trainer(**more):
  return build(resolve(base.get_config(), CHANGES | more)).trainer


def looked(trained, seed=0):
  """Returns the metrics of the first step of a seed, as numbers."""
  look = jax.jit(functools.partial(step_look.look, trained, BUILT))
  return {
    name: float(x[0]) for name, x in look((), jax.jit(trained.init)(seed)).items()
  }


@pytest.fixture(scope="module")
def plain():
  one = trainer()
  return one, looked(one)


def compiled(metrics, mesh=None, seeds=(3, 5), **more):
  mesh = sharding.make_mesh(**(mesh or {}))
  return dispatch.compile_steps(trainer(**more), seeds, (), mesh, 2, metrics)


def norm(arrays):
  total = sum(np.sum(np.square(np.asarray(x, np.float64))) for x in arrays)
  return np.sqrt(total)


def of_layer(tree, layer):
  return [x for path, x in flat(tree).items() if path.startswith(layer)]


def test_training_has_the_same_bits_with_metrics():
  one, more = compiled(()), compiled(BUILT)
  state, other = one.init(), more.init()
  for _ in range(2):
    (state, metrics), (other, with_metrics) = one((), state), more((), other)
  same = jax.tree.map(np.array_equal, state.params, other.params)
  assert all(jax.tree.leaves(same))
  assert {*metrics} < {*with_metrics}
  assert all(np.array_equal(x, with_metrics[name]) for name, x in metrics.items())


def test_norms_are_those_of_the_gradient_and_of_the_step(plain):
  one, found = plain
  state = one.init(0)
  batch = jax.jit(lambda state: one.batch((), state))(state)
  _, grads = jax.jit(one.gradients)(state, batch)
  after, metrics = jax.jit(one.step)(state, batch)
  updates = jax.tree.map(lambda a, b: a - b, after.params, state.params)
  for layer in ("decoder/layer_0", "decoder/layer_1", "decoder/final_norm"):
    here = {name: of_layer(x, layer) for name, x in {"grads": grads}.items()}
    assert found[f"grad_norm/{layer}"] == pytest.approx(norm(here["grads"]), rel=1e-4)
    update, size = (norm(of_layer(x, layer)) for x in (updates, state.params))
    assert found[f"update_norm/{layer}"] == pytest.approx(update, rel=1e-3)
    assert found[f"update_ratio/{layer}"] == pytest.approx(update / size, rel=1e-3)
    assert found[f"param_norm/{layer}"] == pytest.approx(size, rel=1e-4)
  whole = [x for name, x in found.items() if name.startswith("grad_norm/")]
  assert norm(whole) == pytest.approx(float(metrics["grad_norm"]), rel=1e-4)


def test_activations_and_logits_are_those_of_a_layer_by_hand():
  """One layer without positions; its first norm, queries and keys in NumPy."""
  one = trainer(**{"model.layers": 1, "model.position": "none", "model.dropout": 0.0})
  found, state = looked(one), one.init(0)
  batch = one.batch((), state)
  params = jax.tree.map(np.asarray, state.params)
  D = one.model.arch.dims.D
  x_BLD = params["embedding_VD"][np.asarray(batch.input_BL)] * D**0.5
  rms = np.sqrt(np.mean(np.square(x_BLD)))
  assert found["activation_rms/decoder/embedding"] == pytest.approx(rms, rel=1e-4)
  attention = params["decoder"]["layer_0"]["attention"]
  n_BLD = x_BLD / np.sqrt(np.mean(np.square(x_BLD), axis=-1, keepdims=True) + 1e-6)
  q, k = (
    np.einsum("bld,dhk->bhlk", n_BLD, attention[f"{x}_DHK"]) for x in ("query", "key")
  )
  s_BHLM = np.einsum("bhlk,bhmk->bhlm", q, k) * q.shape[-1] ** -0.5
  L = s_BHLM.shape[-1]
  most = s_BHLM[..., np.tril(np.ones((L, L), bool))].max()
  got = found["attention_logit_max/decoder/layer_0/attention"]
  assert got == pytest.approx(most, rel=1e-3)


@pytest.mark.parametrize(
  "change",
  [
    {"model.scan": True},
    pytest.param({"train.accumulate": 4}, marks=pytest.mark.slow),
    pytest.param({"model.remat": "full"}, marks=pytest.mark.slow),
  ],
  ids=str,
)
def test_the_numbers_do_not_depend_on_how_a_step_is_computed(change):
  no_noise = {"model.dropout": 0.0} if "model.scan" in change else {}
  got, want = looked(trainer(**no_noise, **change)), looked(trainer(**no_noise))
  assert got.keys() == want.keys()
  if "model.scan" in change:  # a scanned model starts from other parameters
    assert all(np.isfinite(x) for x in got.values())
  else:
    close(got, want, atol=1e-4)


@pytest.mark.parametrize(
  "mesh",
  [{"data": 2}, pytest.param({"seed": 2, "fsdp": 2}, marks=pytest.mark.slow)],
  ids=str,
)
def test_a_mesh_has_the_numbers_of_one_device_and_a_seed_its_own(plain, mesh):
  _, alone = plain
  program = compiled(BUILT, mesh, seeds=(0, 5))
  _, metrics = program((), program.init())
  for name, x in alone.items():
    assert metrics[name].shape == (2, 1)
    assert float(metrics[name][0, 0]) == pytest.approx(x, rel=1e-3, abs=1e-5), name


def test_every_registered_metric_has_a_value_for_each_layer(plain):
  _, found = plain
  for metric in BUILT:
    paths = [n.partition("/")[2] for n in found if n.startswith(f"{metric.name}/")]
    for n in range(2):
      assert any(path.startswith(f"decoder/layer_{n}") for path in paths), metric
  assert all(np.isfinite(x) for x in found.values())


@pytest.mark.parametrize(
  "more",
  [
    pytest.param(
      {"task": "pairs(copy(symbols=8))", "model.kind": "encoder_decoder"},
      marks=pytest.mark.slow,
    ),
    {"model.attention": "gqa(1) + window(3)", "model.position": "t5"},
  ],
  ids=["encoder_decoder", "gqa"],
)
def test_other_models_have_metrics_too(more):
  found = looked(trainer(**more))
  assert not any(map(np.isinf, found.values()))
  undefined = [name for name, x in found.items() if np.isnan(x)]
  for name in undefined:  # tables of biases begin at 0
    assert name.startswith("update_ratio/")
    assert found[name.replace("update_ratio", "param_norm")] == 0
  if "task" in more:
    assert not undefined
    assert "attention_logit_max/decoder/layer_1/cross" in found
    assert "activation_rms/encoder/layer_0" in found


def test_micro_batches_count_by_their_tokens():
  x_BLD = np.random.default_rng(0).normal(size=(4, 3, 2)).astype("f4")
  real_BL = np.array([[1, 1, 1], [1, 0, 0], [0, 0, 0], [0, 0, 0]], bool)
  metric = step_metrics.build("activation_rms")

  def of(rows):
    state = {"state": {"decoder/layer_0": jnp.asarray(x_BLD[rows])}}
    passed = PassArrays(state, {"decoder": jnp.asarray(real_BL[rows])})
    return metric.of_pass(passed)["decoder/layer_0"]

  want = np.sqrt(np.mean(np.square(x_BLD[real_BL])))
  for parts in ([[0, 1, 2, 3]], [[0, 2], [1, 3]], [[0], [1], [2], [3]]):
    found = metric.join(jnp.stack([of(rows) for rows in parts]))
    np.testing.assert_allclose(found, want, rtol=1e-5)


def test_parameters_of_zero_have_no_ratio():
  params = {"bias_D": jnp.zeros(2), "gain_D": jnp.ones(4)}
  updates = jax.tree.map(lambda x: x + 1.0, params)
  metric = step_metrics.build("update_norm(relative=True)")
  found = metric.of_step(StepArrays({}, updates, params))
  assert np.isnan(found["bias_D"]) and float(found["gain_D"]) == 2.0


OWN = """
import dataclasses
import jax.numpy as jnp
from transformer_jax.training.step_metrics import StepMetric

@dataclasses.dataclass(frozen=True)
class LargestGradient(StepMetric):
  def of_step(self, step):
    return {"embedding": jnp.abs(step.grads["embedding_VD"]).max()}
"""


def test_a_run_logs_them_and_its_id_stays(tmp_path, monkeypatch):
  (tmp_path / "my_metric.py").write_text(OWN)
  monkeypatch.syspath_prepend(tmp_path)
  asked = ("grad_norm", "attention_logit_max", "my_metric:LargestGradient()")
  few = {"seeds": (3, 5), "evaluate.lengths": (1,), "evaluate.examples": 4}
  few |= {"evaluate.batch_size": 4, "train.checkpoint_every": 4}
  plain = resolve(base.get_config(), CHANGES | few)
  config = resolve(plain, {"train.metrics": asked})
  assert run_id(flatten(config)) == run_id(flatten(plain))
  folder = tmp_path / "sweep" / "runs" / "one"
  folder.mkdir(parents=True)
  train.run(config, folder, "tiny", stop=False)
  rows = metrics_log.read(folder / "metrics.jsonl")
  assert [(row["step"], row["seed"]) for row in rows] == [
    (2, 3),
    (2, 5),
    (4, 3),
    (4, 5),
  ]
  names = {"grad_norm/decoder/layer_0", "largest_gradient/embedding"}
  assert names < {*rows[0]} and all(np.isfinite(rows[-1][name]) for name in names)
  board = events.scalars(folder / "tensorboard" / "seed3")
  assert board[4]["grad_norm/decoder/layer_1"] == pytest.approx(
    rows[2]["grad_norm/decoder/layer_1"]
  )
  run = LoadedRun("one", "tiny", "", "finished", config=flatten(config), folder=folder)
  steps = by_layer(run)["grad_norm"]["decoder/layer_0"]
  assert [*steps] == [1, 3] and len(steps[1]) == 2  # first steps of dispatches
  assert steps[1] == [row["grad_norm/decoder/layer_0"] for row in rows[:2]]
  assert json.loads(json.dumps(steps))


def test_bad_metrics_are_refused_in_one_sentence():
  for spec, says in (
    ("grad_nrm", "unknown step metric 'grad_nrm'. Did you mean 'grad_norm'?"),
    ("grad_norm(layer=True)", "has no argument 'layer'"),
    ("tests:Nothing()", "has no 'Nothing'"),
  ):
    config = resolve(base.get_config(), {"train.metrics": (spec,)})
    with pytest.raises(ConfigError) as error:
      validate(config, devices=1)
    assert "train.metrics=" in str(error.value) and says in str(error.value)
  recurrent = {"model.family": "recurrent", "model.position": "none"}
  recurrent |= {"model.feedforward": 256, "train.metrics": ("attention_logit_max",)}
  with pytest.raises(ConfigError, match="leave attention_logit_max out"):
    build(resolve(base.get_config(), CHANGES | recurrent))


def test_padding_is_no_part_of_an_activation():
  metric = step_metrics.build("activation_rms")
  from transformer_jax.training.step_metrics.base import PassArrays

  x_BLD = jnp.array([[[7.0], [2.0], [2.0]], [[7.0], [7.0], [2.0]]])
  at = coords.padded(jnp.array([[False, True, True], [False, False, True]]))
  arrays = PassArrays({"state": {"decoder/layer_0": x_BLD}}, {"decoder": at.real_BL})
  assert float(metric.join(metric.of_pass(arrays)["decoder/layer_0"][None])) == 2.0
