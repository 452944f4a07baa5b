"""Random numbers of `pmap`: dropout and positions.

Reported: every device dropped the same units of its rows and placed them alike. Right:
what one device draws for a row is drawn for it anywhere, so the losses are equal.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_parameters

from experiments.configs import base
from experiments.runner.build import build
from experiments.setup.validate import resolve
from transformer_jax.axes import Dims
from transformer_jax.batch_part import DevicePart
from transformer_jax.models import Architecture, families
from transformer_jax.models.stack import Stack
from transformer_jax.numpy_interpreter import evaluate
from transformer_jax.positions import coords
from transformer_jax.training.pmap import pmap_step, replicate
from transformer_jax.training.step import State

SMALL = {
  "task": "copy(symbols=8)",
  "train.length": 6,
  "train.batch_size": 8,
  "model.width": 16,
  "model.heads": 2,
  "model.feedforward": 16,
  "model.layers": 1,
}
slow = functools.partial(pytest.param, marks=pytest.mark.slow)


def started(trainer):
  """Returns a state of random parameters."""
  params = random_parameters.normal(trainer.shapes.params, 0.2)
  params = jax.tree.map(jnp.asarray, params)
  moments = trainer.optimizer.init(params)
  return State(jnp.int32(0), params, moments, jax.random.key(0), None)


@pytest.mark.parametrize(
  "more",
  [
    {
      "model.dropout": 0.5,
      "model.attention_dropout": 0.5,
      "model.position": "shape(cape(sinusoidal), max_shift=50)",
    },
    slow({"model.position": "randomized(rope, max_positions=64)"}),
    slow({"task": "addition", "model.position": "abacus(coupled)"}),
    slow(
      {
        "model.family": "recurrent",
        "model.position": "none",
        "model.dropout": 0.5,
        "model.layers": 2,
        "model.feedforward": 256,
      }
    ),
  ],
)
def test_devices_draw_what_one_device_draws(more):
  trainer = build(resolve(base.get_config(), SMALL | more)).trainer
  state = started(trainer)
  batch = jax.jit(lambda state: trainer.batch((), state))(state)
  _, one = jax.jit(trainer.step)(state, batch)
  devices = jax.devices()[:4]
  _, four = pmap_step(trainer, devices)(replicate(state, devices), batch)
  for name in ("loss", "grad_norm"):
    np.testing.assert_allclose(four[name], np.full(4, one[name]), rtol=1e-5)


def test_devices_drop_what_one_device_drops_in_a_recurrent_model():
  dims, key = Dims(V=4, D=8, H=1, F=8, L=3), jax.random.key(3)
  arch = Architecture(dims, "none", "dense", decoders=1, dropout=0.5)
  token_BL = np.random.default_rng(0).integers(0, 4, (4, 3))
  model = families.build("recurrent('gru')")(arch)
  shapes = jax.eval_shape(model.init, key, token_BL)["params"]
  draw = lambda x: jnp.asarray(np.random.default_rng(0).normal(size=x.shape), x.dtype)
  params = jax.tree.map(draw, shapes)

  def run(token_BL, part=None):
    local = model.clone(arch=dataclasses.replace(model.arch, part=part))
    return local.apply({"params": params}, token_BL, rngs={"dropout": key})

  one = np.asarray(jax.jit(run)(token_BL))
  on_each = functools.partial(run, part=DevicePart("data"))
  two = jax.pmap(on_each, axis_name="data", devices=jax.devices()[:2])
  found = np.asarray(two(token_BL.reshape(2, 2, 3)))
  np.testing.assert_allclose(found.reshape(one.shape), one, rtol=1e-5, atol=1e-6)
  assert not np.allclose(
    one, evaluate(lambda x: model.apply({"params": params}, x), token_BL)
  )


@pytest.mark.parametrize(
  "position", ["randomized(rope, max_positions=64)", "abacus(coupled)"]
)
def test_devices_draw_the_positions_that_one_device_draws(position):
  """Of one row that all examples share, and of a start for each."""
  arch = Architecture(Dims(V=4, D=4, H=1, F=4, L=6), position, "dense", decoders=1)
  at, key = coords.consecutive(4, 6), jax.random.key(3)
  ids = {name: jnp.arange(24).reshape(4, 6) % 5 for name in arch.position.ids}

  def assign(at, part=None):
    stack = Stack(dataclasses.replace(arch, part=part), "decoder", 1)
    assigned = functools.partial(stack.apply, {}, method="assign_positions")
    return assigned(len(at.order_BL), at, 1.0, rngs={"position": key})

  at = at.replace(data=ids)
  one = jax.jit(assign)(at)
  halves = jax.tree.map(lambda x: x.reshape(2, -1, *x.shape[1:]), at)
  run = functools.partial(assign, part=DevicePart("data"))
  two = jax.pmap(run, axis_name="data", devices=jax.devices()[:2])(halves)
  for found, whole in zip(jax.tree.leaves(two), jax.tree.leaves(one), strict=True):
    want = whole.reshape(2, 2, -1) if len(whole) == 4 else whole[None]
    np.testing.assert_array_equal(found, np.broadcast_to(want, found.shape))
  before, after = jax.tree.leaves(at), jax.tree.leaves(one)
  assert any(not np.array_equal(*pair) for pair in zip(before, after, strict=True))
