"""Gradient accumulation: a step in micro-batches is the step of the whole batch."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_parameters
from test_training import close

from experiments.configs import base
from experiments.runner.build import build
from experiments.setup.validate import resolve
from transformer_jax.positions import coords
from transformer_jax.training import dispatch, sharding
from transformer_jax.training.pmap import pmap_step
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
NOISE = {
  "model.dropout": 0.5,
  "model.attention_dropout": 0.5,
  "model.position": "shape(cape(sinusoidal), max_shift=50)",
}
slow = functools.partial(pytest.param, marks=pytest.mark.slow)


def trainer(**more):
  return build(resolve(base.get_config(), SMALL | more)).trainer


def begun(trained):
  """Returns a state of random parameters, and its batch."""
  params = random_parameters.normal(trained.shapes.params, 0.2)
  params = jax.tree.map(jnp.asarray, params)
  state = State(jnp.int32(0), params, trained.optimizer.init(params), jax.random.key(0))
  return state, jax.jit(lambda state: trained.batch((), state))(state)


def uneven(batch):
  """Returns a batch with few targets in its first half, and none in one example."""
  B, L = batch.weight_BL.shape
  weight_BL = np.random.default_rng(0).uniform(size=(B, L)).astype(np.float32)
  weight_BL[: B // 2, 2:] = 0
  weight_BL[1] = 0
  return dataclasses.replace(batch, weight_BL=jnp.asarray(weight_BL))


def packed(batch):
  """Returns a batch with two texts in each row, cut at a place of its own."""
  B, L = batch.target_BL.shape
  segment_BL = (jnp.arange(L) >= 2 + jnp.arange(B)[:, None] % (L - 2)).astype(int)
  at = coords.packed(segment_BL)
  return uneven(dataclasses.replace(batch, at=at))


CASES = {
  "plain": ({}, lambda batch: batch),
  "uneven": ({}, uneven),
  "packed": ({"model.position": "rope"}, packed),
  "noise": (NOISE, uneven),
  "remat": (
    NOISE | {"model.layers": 2, "model.scan": True, "model.remat": True},
    uneven,
  ),
  "abacus": ({"task": "addition", "model.position": "abacus(coupled)"}, uneven),
  "reader": (
    {"task": "pairs(copy(symbols=8))", "model.kind": "encoder_decoder", **NOISE}
    | {"model.position": "randomized(rope, max_positions=64)"},
    uneven,
  ),
  "recurrent": (
    {"model.family": "recurrent", "model.position": "none", "model.dropout": 0.5}
    | {"model.feedforward": 256},
    uneven,
  ),
}
QUICK = ("packed", "noise")


@pytest.mark.parametrize(
  "case", [case if case in QUICK else slow(case) for case in CASES]
)
@pytest.mark.parametrize("accumulate", [4, slow(2), slow(8)])
def test_micro_batches_give_the_loss_gradients_and_metrics_of_the_batch(
  case, accumulate
):
  more, change = CASES[case]
  one = trainer(**more)
  state, batch = begun(one)
  batch = change(batch)
  want = jax.jit(one.gradients)(state, batch)
  parts = dataclasses.replace(one, accumulate=accumulate)
  got = jax.jit(parts.gradients)(state, batch)
  close(got, want, atol=1e-6)
  assert float(jnp.sum(batch.weight_BL)) == pytest.approx(float(got[0][1]["targets"]))


def test_a_batch_without_targets_teaches_nothing_in_micro_batches_too():
  one = trainer(**{"train.accumulate": 4})
  state, batch = begun(one)
  batch = dataclasses.replace(batch, weight_BL=jnp.zeros_like(batch.weight_BL))
  after, metrics = jax.jit(one.step)(state, batch)
  assert np.isnan(metrics["loss"]) and metrics["targets"] == 0
  assert metrics["grad_norm"] == 0


@pytest.mark.parametrize(
  "mesh", [{"data": 2}, slow({"data": 2, "fsdp": 2, "tensor": 2}), slow({"seed": 2})]
)
def test_micro_batches_on_a_mesh_have_the_numbers_of_one_device(mesh):
  one = trainer(**{"model.dropout": 0.25})
  parts = dataclasses.replace(one, accumulate=2)
  whole = dispatch.compile_steps(one, (3, 5), (), sharding.make_mesh(), 1)
  split = dispatch.compile_steps(parts, (3, 5), (), sharding.make_mesh(**mesh), 1)
  (want, want_metrics), (got, got_metrics) = (
    program((), program.init()) for program in (whole, split)
  )
  close(got.params, want.params)
  close(got_metrics, want_metrics)


@pytest.mark.parametrize("dropout", [0.0, 0.25])
def test_micro_batches_take_less_memory(dropout):
  """Of activations, of which a device holds those of one micro-batch."""
  sizes = {"train.batch_size": 64, "train.length": 32, "model.layers": 2}
  one = trainer(**SMALL | sizes | {"model.dropout": dropout})

  def temporary(accumulate):
    parts = dataclasses.replace(one, accumulate=accumulate)
    shapes = parts.shapes
    batch = jax.eval_shape(lambda state: parts.batch((), state), shapes)
    memory = jax.jit(parts.step).lower(shapes, batch).compile().memory_analysis()
    return memory.temp_size_in_bytes

  assert temporary(8) < temporary(1) / 3


def test_a_trainer_names_sizes_that_do_not_divide():
  with pytest.raises(ValueError, match="accumulate=3 does not divide the batch_size"):
    dataclasses.replace(trainer(), accumulate=3)
  with pytest.raises(ValueError, match="pmap takes whole batches"):
    pmap_step(dataclasses.replace(trainer(), accumulate=2), jax.devices()[:2])
