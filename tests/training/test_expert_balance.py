"""Experts in training: the balance of their load, configs, counts and refusals."""

import dataclasses

import jax
import numpy as np
import pytest
from oracles import experts as oracle
from test_accumulate import SMALL, begun, packed

from experiments.configs import base
from experiments.runner.build import build
from experiments.runner.dry_run import summary
from experiments.runner.result import cost_of
from experiments.setup.identity import identity
from experiments.setup.validate import ConfigError, flatten, resolve
from transformer_jax.models import capture
from transformer_jax.models.param_tree import flat
from transformer_jax.spec import SpecError
from transformer_jax.training import sharding

KEY = "model.feedforward_kind"
EXPERTS = {
  "train.schedule": "constant",
  KEY: "experts(4, 2, router='sigmoid')",
  "train.auxiliary": ("expert_balance",),
}


def trainer(**more):
  return build(resolve(base.get_config(), SMALL | EXPERTS | more)).trainer


def test_the_balance_of_experts_is_the_papers_and_is_trained():
  trained = trainer(**{"train.auxiliary": ("expert_balance(weight=3.0)",)})
  state, batch = begun(trained)
  batch = packed(batch)
  assert not np.all(batch.at.real_BL)
  new, metrics = jax.jit(trained.step)(state, batch)
  kind = trained.model.arch.feedforward_kind
  look = lambda params: capture.run(
    trained.model, params, *batch.reads, want=("expert_shares",)
  )[1]["expert_shares"]
  found = []
  for share_BLX in jax.jit(look)(state.params).values():
    share = np.asarray(share_BLX, np.float64)
    real_BL = np.broadcast_to(batch.at.real_BL, share.shape[:2])
    # Sigmoids with that share of each other; any one multiple of them serves.
    logits_BLX = np.log(share / 2) - np.log1p(-share / 2)
    found.append(oracle.balance(logits_BLX, real_BL, kind))
  name = "auxiliary/expert_balance"
  np.testing.assert_allclose(metrics[name], np.mean(found), rtol=1e-5)
  router = [n for n in flat(new.params) if n.endswith("router_DX")]
  assert router and all(
    np.any(flat(new.params)[n] != flat(state.params)[n]) for n in router
  )


def test_a_step_on_eight_devices_is_that_of_one():
  trained = trainer(**{"train.batch_size": 8})
  state, batch = begun(trained)
  _, alone = jax.jit(trained.step)(state, batch)
  mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
  with jax.set_mesh(mesh):
    placed = jax.device_put(state, sharding.split(mesh, state))
    _, split = jax.jit(trained.step)(placed, batch)
  for name in ("loss", "auxiliary/expert_balance", "grad_norm"):
    np.testing.assert_allclose(split[name], alone[name], rtol=2e-5, err_msg=name)


def test_a_bias_of_the_choice_stays_where_it_is():
  trained = trainer(**{KEY: "experts(4, 2, router='sigmoid', bias=True)"})
  state, batch = begun(trained)
  new, _ = jax.jit(trained.step)(state, batch)
  for name, x in flat(new.params).items():
    if name.endswith("router_bias_X"):
      np.testing.assert_array_equal(x, flat(state.params)[name])


@pytest.mark.parametrize(
  ("more", "says"),
  [
    ({"train.accumulate": 2}, "expert_balance reads the whole batch, and train.accum"),
    ({KEY: "dense"}, "the model has no layer of experts; write model.feedforward_kind"),
    ({KEY: "experts(4, 9)"}, "active=9, and a token chooses from 4 experts"),
    ({KEY: "expert(4)"}, "experts"),
    (
      {KEY: "leading(1)", "model.scan": True, "model.layers": 2},
      "set model.scan=False",
    ),
  ],
)
def test_impossible_experts_are_refused_when_built(more, says):
  with pytest.raises((ConfigError, SpecError, ValueError)) as error:
    trained = trainer(**more)
    jax.eval_shape(trained.init, 0)
  assert says in str(error.value)


def test_dense_layers_keep_the_ids_of_runs():
  flat_ = dict(flatten(resolve(base.get_config(), SMALL)))
  assert flat_[KEY] == "dense" and KEY not in identity(flat_)
  assert KEY in identity(flat_ | {KEY: "experts(4, 2)"})


def test_a_dry_run_says_how_many_parameters_a_token_is_computed_with():
  experiment = build(resolve(base.get_config(), SMALL | EXPERTS))
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  cost = cost_of(experiment, experiment.task.abstract(), mesh)
  assert cost["active_parameters"] < cost["parameters"]
  line = summary(cost | {"state_bytes": 0})
  assert f" positional, {cost['active_parameters']:,} for a token)" in line
  dense = dataclasses.replace(experiment.trainer.model.arch, feedforward_kind="dense")
  assert dense.feedforward_kind.experts == 0
