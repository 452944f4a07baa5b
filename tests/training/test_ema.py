"""Moving average of the parameters: its definition, its users, and runs without it."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_training import bits, fit, trainer

from experiments import inference
from experiments.configs import base
from experiments.runner import pretrained, train
from experiments.runner.build import build
from experiments.setup.validate import flatten, resolve
from transformer_jax.data.base import Task
from transformer_jax.training.checkpoint import Keeper
from transformer_jax.training.checkpoint_note import named_leaves
from transformer_jax.training.json_files import write_json

CONFIG = resolve(
  base.get_config(),
  {
    "task": "copy(symbols=4)", "seeds": (0, 1), "model.position": "none",
    "model.width": 16, "model.layers": 1, "model.heads": 2, "model.feedforward": 32,
    "model.core": "dense", "train.length": 4, "train.batch_size": 8, "train.steps": 6,
    "train.steps_per_dispatch": 3, "train.checkpoint_every": 3, "train.ema": 0.75,
    "train.optimizer": "adamw(lr=0.1)", "train.schedule": "constant",
    "evaluate.lengths": (1,), "evaluate.examples": 64, "evaluate.batch_size": 16,
  },
)  # fmt: skip


@functools.cache
def step(ema):
  """Returns a step with the average of this decay, compiled."""
  averaged = dataclasses.replace(trainer("none"), ema=ema)
  return jax.jit(lambda state: averaged.step(state, averaged.batch((), state))[0])


@functools.cache
def begun():
  """Returns the first state of a run with an average."""
  return jax.jit(dataclasses.replace(trainer("none"), ema=0.9).init)(3)


def test_the_average_is_that_of_its_definition():
  state, history = begun(), []
  np.testing.assert_array_equal(*map(np.concatenate, flat_pair(state)))
  for _ in range(7):
    state = step(0.9)(state)
    history.append(jax.device_get(state.params))
  weights = 0.9 ** np.arange(6, -1, -1, dtype=np.float64)
  weights /= weights.sum()

  def definition(*values):
    return np.tensordot(weights, np.stack(values).astype(np.float64), 1)

  want = jax.tree.map(definition, *history)
  for got, wanted in zip(*map(jax.tree.leaves, (state.eval_params, want)), strict=True):
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)
  moved = [np.abs(a - b).max() for a, b in zip(*flat_pair(state), strict=True)]
  assert max(moved) > 1e-2


def flat_pair(state):
  """Returns the parameters and their averages, each as a list of flat arrays."""
  trees = state.params, state.ema_params
  return tuple([np.ravel(x) for x in jax.tree.leaves(tree)] for tree in trees)


def test_without_it_the_state_is_as_it_was():
  state = trainer("none").shapes
  assert state.ema_params is None and state.eval_params is state.params
  names = named_leaves(state)
  assert not any("ema" in name for name in names)
  averaged = named_leaves(dataclasses.replace(trainer("none"), ema=0.5).shapes)
  added = {f"ema_{name}" for name in names if name.startswith("params.")}
  assert averaged.keys() == names.keys() | added


def test_the_average_changes_no_parameter():
  plain, averaged = dataclasses.replace(begun(), ema_params=None), begun()
  for _ in range(2):  # the first step of a warm-up is one of 0
    plain, averaged = step(0)(plain), step(0.9)(averaged)
  assert plain.ema_params is None and averaged.ema_params is not None
  assert bits(plain.params) == bits(averaged.params) != bits(begun().params)


def test_a_checkpoint_between_steps_changes_no_bit_of_the_average(tmp_path):
  stopped = step(0.9)(step(0.9)(begun()))
  with Keeper(tmp_path) as keeper:
    keeper.save(2, stopped, {})
  with Keeper(tmp_path) as keeper:
    restored, _ = keeper.restore(begun())
  whole, again = step(0.9)(stopped), step(0.9)(restored)
  assert bits(again) == bits(whole)
  assert bits(again.ema_params) != bits(again.params)


@pytest.mark.slow
def test_a_stopped_run_with_an_average_goes_on_to_the_same_bits(tmp_path):
  whole, _, _ = fit(tmp_path / "whole", position="none", ema=0.9)
  stopped, _, _ = fit(tmp_path / "stopped", stop_at=8, position="none", ema=0.9)
  again, _, start = fit(tmp_path / "stopped", position="none", ema=0.9)
  assert start == stopped.step < 20 and whole.state.ema_params is not None
  assert bits(again.state) == bits(whole.state)


@functools.cache
def built():
  return build(CONFIG)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """Returns the folder of a run with an average, its result and its last state."""
  trained, folder = built(), tmp_path_factory.mktemp("sweep") / "runs" / "one"
  folder.mkdir(parents=True)
  result = train.run(CONFIG, folder, "one", stop=False)
  write_json(folder / "config.json", flatten(CONFIG))
  abstract = trained.trainer.shapes_of(2)
  with Keeper(folder / "checkpoints") as keeper:
    state, _ = keeper.restore(abstract)
  assert bits(state.params) != bits(state.ema_params)
  return folder, result, state


def test_scores_are_those_of_the_average(run):
  _, result, state = run
  evaluator = built().evaluator
  scores = evaluator.run(state.ema_params, (), (4,))
  values = [row["value"] for row in result["scores"]]
  assert values == [row["value"] for row in scores]
  others = evaluator.run(state.params, (), (4,))
  assert values != [row["value"] for row in others]


def test_the_average_is_what_commands_and_other_runs_start_from(run, tmp_path):
  folder, _, state = run
  loaded = inference.load(folder, Task, "a task", seed=1, last=1)
  assert bits(loaded.params) == bits(jax.tree.map(lambda x: x[1], state.ema_params))
  start = pretrained.read_pretrained(str(folder), built(), tmp_path)
  first = jax.tree.map(lambda x: x[0], state.ema_params)
  assert bits(pretrained.nested(start.arrays)) == bits(first)
  fresh = jax.jit(jax.vmap(built().trainer.init))(jnp.arange(2))
  began = start._put(fresh)
  assert bits(began.ema_params) == bits(began.params) != bits(fresh.params)
