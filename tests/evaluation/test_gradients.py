"""Norms of gradients by layer and by distance, and the command that draws them."""

import csv
import dataclasses
import pathlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trained_sweep

from experiments import gradients
from experiments.configs import base
from experiments.runner.build import build
from experiments.setup.validate import ConfigError, resolve
from transformer_jax.analysis import gradient_flow
from transformer_jax.data.base import Batch
from transformer_jax.models.param_tree import flat, natural
from transformer_jax.positions import coords

workdir = trained_sweep.workdir
SMALL = {
  "task": "copy(symbols=8)",
  "train.length": 6,
  "train.batch_size": 4,
  "model.width": 16,
  "model.heads": 2,
  "model.feedforward": 16,
  "model.layers": 2,
}
ENCODER = {"task": "blanks(copy(symbols=8))", "model.kind": "encoder"}
PAIRS = {"task": "pairs(copy(symbols=8))", "model.kind": "encoder_decoder"}
RECURRENT = {"model.position": "none", "model.feedforward": 256}


distance_norms = jax.jit(gradient_flow.distance_norms, static_argnums=0)


def begun(**more):
  made = build(resolve(base.get_config(), SMALL | more)).trainer
  state = jax.jit(made.init)(0)
  return made, state, jax.jit(made.batch)((), state)


@pytest.mark.parametrize("more", [{}, {"model.scan": True}, PAIRS])
def test_norms_by_layer_are_those_of_the_gradients(more):
  made, state, batch = begun(**more)
  found = gradient_flow.by_layer(made, state, batch)
  (_, _), grads = made.gradients(state, batch)
  whole = np.sqrt(sum(np.sum(np.square(x)) for x in flat(grads).values()))
  stacks = ("encoder", "decoder") if more is PAIRS else ("decoder",)
  assert {*found} == {f"{stack}/layer_{n}" for stack in stacks for n in range(2)}
  outside = [x for path, x in flat(grads).items() if "/layer" not in path]
  rest = sum(np.sum(np.square(x)) for x in outside)
  layers = sum(float(x) ** 2 for x in found.values())
  np.testing.assert_allclose(np.sqrt(layers + rest), whole, rtol=1e-4)


@pytest.mark.parametrize(
  "more",
  [
    {"model.position": "rope"},
    ENCODER,
    PAIRS,
    *(RECURRENT | {"model.family": f"recurrent(cell={x!r})"} for x in ("elman", "gru")),
  ],
)
def test_norms_by_distance_are_derivatives_of_the_last_loss(more):
  made, state, batch = begun(**more)
  norm_BL = np.asarray(distance_norms(made.model, state.params, batch))
  real_BL = np.broadcast_to(batch.at.real_BL, batch.weight_BL.shape)
  for row, weight_L in enumerate(np.asarray(batch.weight_BL)):
    last = np.flatnonzero(weight_L > 0)[-1]
    there = [n for n in range(len(weight_L)) if last >= n and real_BL[row, last - n]]
    assert [*np.flatnonzero(~np.isnan(norm_BL[row]))] == there
  # A step of one embedded token along its gradient changes the loss by its norm.
  stack = "encoder" if more is ENCODER else "decoder"
  path, (row, n) = f"{stack}/embedding", (1, 2)
  last = np.flatnonzero(np.asarray(batch.weight_BL)[row] > 0)[-1]
  loss, grad_D = of_last(made.model, state.params, batch, path, row, last, last - n)
  direction_D = grad_D / np.linalg.norm(grad_D)
  change = (loss(1e-2 * direction_D) - loss(-1e-2 * direction_D)) / 2e-2
  np.testing.assert_allclose(norm_BL[row, n], change, rtol=2e-2)


def of_last(model, params, batch, path, row, last, place):
  """Returns the loss at a place as a function of a change of one token; its slope."""
  from transformer_jax.models import capture

  @jax.jit
  def loss(change_D):
    edit = {"state": lambda at, x: x.at[row, place].add(change_D) if at == path else x}
    logits_BLV, _ = capture.run(model, params, *batch.reads, want=(), edit=edit)
    return -jax.nn.log_softmax(logits_BLV[row, last])[batch.target_BL[row, last]]

  return loss, jax.grad(loss)(jnp.zeros(model.arch.dims.D))


@pytest.mark.slow
def test_a_causal_model_without_attention_to_the_past_has_no_gradient_there():
  made, state, batch = begun(**{"model.attention": "window(1)"})
  norm_BL = np.asarray(gradient_flow.distance_norms(made.model, state.params, batch))
  assert np.nanmin(norm_BL[:, 0]) > 0 and np.nanmax(norm_BL[:, 1:]) == 0


@pytest.mark.slow
def test_a_mean_over_texts_leaves_out_those_that_are_shorter():
  made, state, _ = begun()
  token_BL = jnp.ones((2, 4), jnp.int32)
  weight_BL = jnp.array([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]])
  batch = Batch(token_BL, token_BL, weight_BL, coords.consecutive(1, 4))
  found = gradient_flow.by_distance(made, state, batch)
  norm_BL = gradient_flow.distance_norms(made.model, state.params, batch)
  assert np.isnan(norm_BL[0]).tolist() == [False, False, True, True]
  np.testing.assert_allclose(found["3"], norm_BL[1, 3], rtol=1e-6)
  np.testing.assert_allclose(found["1"], norm_BL[:, 1].mean(), rtol=1e-6)
  empty = dataclasses.replace(batch, weight_BL=jnp.zeros((2, 4)))
  norm_BL = gradient_flow.distance_norms(made.model, state.params, empty)
  assert np.isnan(norm_BL).all()


@pytest.mark.parametrize("by", ["layer", "distance"])
def test_the_command_draws_each_group_at_the_start_and_after(workdir, by):
  paths = list(gradients.draw(workdir, by, ["text"], examples=2))
  assert {path.suffix for path in paths} == {".png", ".svg", ".pdf", ".csv"}
  names = {path.stem for path in paths}
  assert names == {f"gradients_by_{by}_text_{time}" for time in ("start", "trained")}
  rows = [read(path) for path in paths if path.suffix == ".csv"]
  assert len(rows[0]) == len(rows[1]) == (1 if by == "layer" else 16)
  places = [int(row[gradients.BY[by]]) for row in rows[0]]
  assert places == sorted(places) == [*range(len(places))]
  assert rows[0] != rows[1] and all(float(row["mean"]) > 0 for row in rows[0][:1])


def test_an_encoder_and_a_decoder_have_a_curve_each(monkeypatch):
  experiment = build(resolve(base.get_config(), SMALL | PAIRS))
  trainer = experiment.trainer
  state = jax.jit(trainer.init)(0)
  batch = trainer.batch((), state)
  stacked = jax.tree.map(lambda x: np.asarray(x)[None], state.params)
  run = types.SimpleNamespace(
    experiment=experiment, seeds=(0,), stacked=stacked, batch=lambda examples: batch
  )
  monkeypatch.setattr("experiments.analysis.load_run", lambda folder: run)
  found = gradients.measured(pathlib.Path("ID"), "layer", examples=4)
  assert {*found} == {
    (x, time) for x in ("encoder", "decoder") for time in gradients.TIMES
  }
  want = jax.jit(lambda state: gradient_flow.by_layer(trainer, state, batch))(state)
  for (stack, _), (x, norm_SX) in found.items():
    assert [*x] == [0, 1]
    norms = [want[f"{stack}/layer_{n}"] for n in range(2)]
    np.testing.assert_allclose(norm_SX[0], norms, rtol=1e-4)


def test_the_figures_of_two_stacks_have_their_names(workdir, monkeypatch):
  curves = {("encoder", "start"): ([0, 1], np.ones((1, 2)))}
  curves |= {("decoder", "start"): ([0, 1, 2], np.ones((1, 3)))}
  monkeypatch.setattr(gradients, "measured", lambda *_: curves)
  paths = list(gradients.draw(workdir, "layer", ["text"]))
  sizes = {path.stem: len(read(path)) for path in paths if path.suffix == ".csv"}
  names = [f"gradients_by_layer_text_{x}_start" for x in ("encoder", "decoder")]
  assert sizes == dict(zip(names, (2, 3), strict=True))


def read(path: pathlib.Path):
  with open(path, newline="") as file:
    return [*csv.DictReader(file)]


def test_a_group_that_is_not_there_is_named(workdir):
  with pytest.raises(ConfigError, match="--groups: there is no 'sums'. text, copy"):
    list(gradients.draw(workdir, "layer", ["sums"]))


def test_layers_are_in_their_order():
  names = [f"decoder/layer_{n}" for n in range(12)]
  assert sorted(sorted(names), key=natural) == names
