"""The bias by which experts are chosen, moved by their load and by no optimizer."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import experts as oracle
from test_accumulate import SMALL, begun, packed

from experiments.configs import base
from experiments.runner.build import build
from experiments.setup.validate import resolve
from transformer_jax.models import capture
from transformer_jax.models.param_tree import flat, nested
from transformer_jax.spec import SpecError
from transformer_jax.training import sharding
from transformer_jax.training.pmap import pmap_step, replicate

KEY, RATE = "model.feedforward_kind", 0.03
SPEC = f"experts(4, 2, router='sigmoid', bias=True, balance_rate={RATE})"
BIAS = "router_bias_X"


def trainer(spec=SPEC, **more):
  more = {"train.schedule": "constant", KEY: spec} | more
  return build(resolve(base.get_config(), SMALL | more)).trainer


@functools.cache
def whole():
  """Returns a trainer of whole batches, and its compiled step."""
  trained = trainer()
  return trained, jax.jit(trained.step)


def start():
  """Returns a state of random parameters, and its batch with padding."""
  state, batch = begun(whole()[0])
  batch = packed(batch)
  assert not np.all(batch.at.real_BL)
  return state, batch


def biases(params):
  """Returns the biases of each layer, bias_NX."""
  found = [np.asarray(x) for n, x in flat(params).items() if n.endswith(BIAS)]
  return np.concatenate([x.reshape(-1, 4) for x in found])


def choices(trained, params, batch):
  """Returns chosen_BLX of each layer: True for the experts of each token."""
  look = lambda params: capture.run(
    trained.model, params, *batch.reads, want=("expert_weights",)
  )[1]["expert_weights"]
  return [np.asarray(x) > 0 for x in jax.jit(look)(params).values()]


def expected(trained, state, batch):
  """Returns the biases after a step, by the paper's algorithm in loops."""
  moved = []
  layers = choices(trained, state.params, batch)
  for bias_X, chosen_BLX in zip(biases(state.params), layers, strict=True):
    chosen_BLC = [[np.flatnonzero(x_X) for x_X in x_LX] for x_LX in chosen_BLX]
    real_BL = np.broadcast_to(batch.at.real_BL, chosen_BLX.shape[:2])
    moved.append(oracle.moved_bias(bias_X, chosen_BLC, real_BL, RATE))
  return np.stack(moved)


def test_a_step_moves_the_bias_as_the_paper_does():
  """By the tokens of the whole batch, without padding."""
  trained, step = whole()
  state, batch = start()
  new = biases(step(state, batch)[0].params)
  np.testing.assert_allclose(new, expected(trained, state, batch), rtol=1e-6)
  assert np.any(new != biases(state.params))


def test_layers_in_a_loop_move_each_its_own():
  trained = trainer(**{"model.scan": True, "model.remat": True, "model.layers": 3})
  state, batch = begun(trained)
  new = biases(jax.jit(trained.step)(state, batch)[0].params)
  assert len(new) == 3
  np.testing.assert_allclose(new, expected(trained, state, batch), rtol=1e-6)


def by_micro_batches(trained, state, batch):
  trained = dataclasses.replace(trained, accumulate=4)
  return jax.jit(trained.step)(state, batch)[0]


def on_a_mesh(trained, state, batch):
  mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
  with jax.set_mesh(mesh):
    placed = jax.device_put(state, sharding.split(mesh, state))
    return jax.jit(trained.step)(placed, batch)[0]


def by_pmap(trained, state, batch):
  devices = jax.devices()[:4]
  new, _ = pmap_step(trained, devices)(replicate(state, devices), batch)
  return jax.tree.map(lambda x: x[0], new)


@pytest.mark.parametrize("step_in_parts", [by_micro_batches, on_a_mesh, by_pmap])
def test_parts_of_a_batch_move_it_as_the_whole(step_in_parts):
  trained, step = whole()
  state, batch = start()
  expected = biases(step(state, batch)[0].params)
  found = biases(step_in_parts(trained, state, batch).params)
  np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_load_of_a_skewed_router_is_balanced():
  """All tokens choose two of four experts at first, and in the end all four.

  All parameters but the bias stay as they are.
  """
  trained, step = whole()
  state, _ = begun(trained)
  fixed = flat(state.params)

  def with_bias(state, bias_X):
    params = {n: bias_X if n.endswith(BIAS) else x for n, x in fixed.items()}
    return dataclasses.replace(state, params=nested(params))

  state = with_bias(state, jnp.array([1.0, 1.0, 0.0, 0.0]) * 20 * RATE)
  draw = jax.jit(lambda state: trained.batch((), state))

  def unevenness(state):
    """Returns the largest load over the mean one, less 1: MaxVio of the paper."""
    (chosen_BLX,) = choices(trained, state.params, draw(state))
    load_X = chosen_BLX.sum((0, 1))
    return load_X.max() / load_X.mean() - 1

  first = unevenness(state)
  for _ in range(60):
    state, _ = step(state, draw(state))
    state = with_bias(state, jnp.asarray(biases(state.params)[0]))
  assert first > 0.9 and unevenness(state) < 0.35


def test_a_batch_without_tokens_moves_nothing():
  _, step = whole()
  state, batch = start()
  at = batch.at.replace(order_BL=-jnp.ones_like(batch.at.order_BL))
  batch = dataclasses.replace(batch, at=at, weight_BL=0 * batch.weight_BL)
  new, _ = step(state, batch)
  np.testing.assert_array_equal(biases(new.params), biases(state.params))


@pytest.mark.parametrize(
  ("spec", "says"),
  [
    ("experts(4, balance_rate=0.001)", "there is none; write bias=True"),
    ("experts(4, bias=True, balance_rate=-1.0)", "-1.0; write 0 or more, as 0.001"),
  ],
)
def test_rates_that_move_nothing_are_refused(spec, says):
  with pytest.raises(SpecError, match=says):
    trainer(spec)
