"""On accelerators every product reads whole weights, of whatever part of a model."""

import dataclasses

import jax
import pytest
import split_products

from experiments.configs import base
from experiments.runner.build import build
from experiments.setup.validate import resolve
from transformer_jax import matmul, weight_gradients
from transformer_jax.attention import attentions
from transformer_jax.axes import axes_of
from transformer_jax.models.recurrent.rnn_cells import cells
from transformer_jax.models.residual import placements
from transformer_jax.positions import positions
from transformer_jax.training import dispatch, sharding

SMALL = {"task": "copy(symbols=12)", "train.length": 6, "train.batch_size": 8}
SMALL |= {"model.width": 32, "model.heads": 4, "model.layers": 1}
SMALL |= {"model.feedforward": 64, "model.position": "none"}
# Encodings that read coordinates of images or steps, which these texts lack.
OTHER_DATA = {"abacus", "axial_rope", "learned_2d", "liere", "mixed_rope"}
OTHER_DATA |= {"sinusoidal_2d", "timestep"}
FEW = [
  {"model.feedforward_kind": "experts(4, 2, shared=16)"},
  {"model.attention": "nsa"},
  {"model.position": "tupe"},
  {"model.position": "wall"},
  {"model.norm_placement": "hyper_connections"},
  {"model.norm_placement": "mhc"},
  {"model.family": "recurrent(cell='lstm')", "model.feedforward": 256},
]
ALL = [{"model.attention": name} for name in attentions]
ALL += [{"model.position": name} for name in positions if name not in OTHER_DATA]
ALL += [{"model.norm_placement": name} for name in placements]
ALL += [
  {"model.family": f"recurrent(cell='{name}')", "model.feedforward": 256}
  for name in cells
]
ALL += [
  {"model.attention": "mla(latent=16, part=0, queries=16)"},
  {"model.attention": "value_residual(mix='token')"},
  {"train.auxiliary": ("multi_token(tokens=2)",)},
]


def divided(overrides):
  """Returns the names of weights that a product of a step reads in parts."""
  trainer = build(resolve(base.get_config(), SMALL | overrides)).trainer
  mesh = sharding.make_mesh(fsdp=4, data=2)
  with jax.set_mesh(mesh):
    trainer = dispatch._on_mesh(trainer, mesh)
    state = trainer.shapes

    def loss(params, state):
      state = dataclasses.replace(state, params=params)
      return trainer.loss(params, trainer.batch((), state), state)[0]

    jaxpr = jax.make_jaxpr(loss)(state.params, state).jaxpr
  leaves = jax.tree_util.tree_leaves_with_path(state.params)
  where = jax.tree.leaves(sharding.split(mesh, state.params))
  split = {
    variable: sharding._name(path)
    for variable, (path, _), each in zip(jaxpr.invars, leaves, where, strict=False)
    if "fsdp" in each.spec
  }
  assert split
  return split_products.divided(jaxpr, split)


@pytest.fixture(autouse=True)
def on_an_accelerator(monkeypatch):
  for module in (matmul, weight_gradients):
    monkeypatch.setattr(module, "platform", lambda: "tpu")


@pytest.mark.parametrize("overrides", FEW, ids=str)
def test_products_read_whole_weights(overrides):
  assert not divided(overrides)


@pytest.mark.slow  # 1 s each
@pytest.mark.parametrize("overrides", ALL, ids=str)
def test_products_of_every_option_read_whole_weights(overrides):
  assert not divided(overrides)


def test_a_product_of_a_split_weight_is_found(monkeypatch):
  monkeypatch.setattr(matmul, "gather_matrix", lambda w, letters: w)
  found = divided({})
  assert {"in_DF", "out_FD", "query_DHK"} <= found
  assert all("D" in axes_of(name) for name in found)
