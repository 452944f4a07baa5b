"""Auxiliary losses: the papers' numbers, one step in any layout, refusals, NaN."""

import dataclasses
import importlib
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import auxiliary_losses as oracle
from test_accumulate import NOISE, SMALL, begun, packed, uneven
from test_objectives import Doubling, model_of
from test_training import close

from experiments.configs import base
from experiments.runner import train
from experiments.runner.build import build
from experiments.setup.identity import run_id
from experiments.setup.validate import ConfigError, flatten, resolve, validate
from transformer_jax.models import capture
from transformer_jax.positions import coords
from transformer_jax.spec import SpecError
from transformer_jax.training import dispatch_metrics, sharding
from transformer_jax.training.auxiliary import auxiliary_losses, auxiliary_probe
from transformer_jax.training.auxiliary.terms import name_of
from transformer_jax.training.auxiliary.training_pass import stack_of
from transformer_jax.training.pmap import pmap_step, replicate
from transformer_jax.training.step import State

# Spec: (place, oracle of (arrays, real), whether its tokens are keys).
ORACLES = {
  "head_diversity(output)": (
    "output",
    lambda *args: -oracle.disagreement_of_vectors(*args),
    False,
  ),
  "head_diversity(subspace)": (
    "value",
    lambda *args: -oracle.disagreement_of_vectors(*args),
    True,
  ),
  "head_diversity(positions)": (
    "weights",
    lambda *args: -oracle.disagreement_on_positions(*args),
    False,
  ),
  "attention_entropy": ("weights", oracle.entropies, False),
  "attention_entropy(target=0.7)": (
    "weights",
    lambda *args: oracle.entropies(*args, power=lambda x: (x - 0.7) ** 2),
    False,
  ),
}
EVERY = (*ORACLES, "z_loss")
SMALL = SMALL | {"train.schedule": "constant"}
PAIRS = {"task": "pairs(copy(symbols=8))", "model.kind": "encoder_decoder"}
KINDS = {
  "decoder": (
    {"model.position": "alibi", "model.layers": 2},
    lambda batch: uneven(batch),
  ),
  "packed": ({"model.attention": "gqa(2)", "model.heads": 4}, packed),
  "encoder": (
    {"task": "blanks(copy(symbols=8))", "model.kind": "encoder"},
    lambda batch: uneven(padded(batch)),
  ),
  "encoder_decoder": (PAIRS, lambda batch: uneven(padded(batch))),
}


def trainer(losses=EVERY, **more):
  return build(resolve(base.get_config(), SMALL | {"train.auxiliary": losses} | more))


def padded(batch):
  """Returns a batch with padding, of other lengths in the source than in the target."""

  def padding(at, least):
    B, L = batch.input_BL.shape[0], at.order_BL.shape[1]
    real_BL = jnp.arange(L) < least + jnp.arange(B)[:, None] % (L - least)
    made = coords.padded(real_BL)
    return made.bidirectional() if at.horizon_BL.max() > L else made

  source_at = None if batch.source_at is None else padding(batch.source_at, 2)
  return dataclasses.replace(batch, at=padding(batch.at, 3), source_at=source_at)


SLOW = {"encoder_decoder", "packed"}  # 8 s each on a quiet core
LOSSES_OF = [pytest.param(x, marks=pytest.mark.slow) if x in SLOW else x for x in KINDS]


@pytest.mark.parametrize("kind", LOSSES_OF)
def test_each_loss_is_that_of_its_paper(kind):
  more, change = KINDS[kind]
  one = trainer(**more).trainer
  state, batch = begun(one)
  batch = change(batch)
  (_, metrics), _ = jax.jit(one.gradients)(state, batch)
  places = ("output", "value", "weights")
  look = lambda params: capture.run(one.model, params, *batch.reads, want=places)
  logits_BLV, captured = jax.jit(look)(state.params)
  source = batch.at if batch.source_at is None else batch.source_at
  B = batch.input_BL.shape[0]
  sides = {"decoder": batch.at, "encoder": source}
  for spec, (place, wanted, keys) in ORACLES.items():
    arrays = captured[place]
    real = {path: sides[stack_of(path, keys)].real_BL for path in arrays}
    real = {path: np.broadcast_to(x, (B, x.shape[1])) for path, x in real.items()}
    found = metrics[f"auxiliary/{name_of(auxiliary_losses.build(spec))}"]
    assert float(found) == pytest.approx(wanted(arrays, real), rel=2e-4), spec
  z = oracle.z_loss(logits_BLV, batch.weight_BL)
  assert float(metrics["auxiliary/z_loss"]) == pytest.approx(z, rel=1e-4)


def test_a_recurrent_model_has_a_z_loss():
  more = {"model.family": "recurrent", "model.position": "none"}
  one = trainer(("z_loss",), **more, **{"model.feedforward": 256}).trainer
  state, batch = begun(one)
  (_, metrics), _ = jax.jit(one.gradients)(state, batch)
  logits_BLV = one.model.apply({"params": state.params}, *batch.reads)
  z = oracle.z_loss(logits_BLV, batch.weight_BL)
  assert float(metrics["auxiliary/z_loss"]) == pytest.approx(z, rel=1e-4)


def test_a_task_of_numbers_takes_losses_of_heads_and_no_z_loss():
  task, model = Doubling(), model_of(Doubling())
  auxiliary_probe.check((auxiliary_losses.build("head_diversity"),), model, task, 6)
  with pytest.raises(SpecError, match="z_loss reads logits of labels"):
    auxiliary_probe.check((auxiliary_losses.build("z_loss"),), model, task, 6)


def test_where_chooses_attention_layers():
  losses = tuple(f"attention_entropy(where={x})" for x in ("encoder", "cross", "all"))
  one = trainer(losses, **PAIRS).trainer
  state, batch = begun(one)
  (_, metrics), _ = jax.jit(one.gradients)(state, batch)
  found = {name: float(x) for name, x in metrics.items() if "entropy" in str(name)}
  assert len(found) == 3 and len({round(x, 4) for x in found.values()}) == 3
  _, captured = capture.run(one.model, state.params, *batch.reads)
  arrays = {p: x for p, x in captured["weights"].items() if p.startswith("encoder")}
  real = dict.fromkeys(arrays, batch.source_at.real_BL)
  wanted = oracle.entropies(arrays, real)
  encoder = found["auxiliary/attention_entropy(where='encoder')"]
  assert encoder == pytest.approx(wanted, rel=1e-5)


def test_the_loss_is_still_the_cross_entropy_and_the_gradient_is_that_of_the_sum():
  weighted = ("head_diversity(positions, weight=0.5)", "z_loss(weight=0.25)")
  one, plain = trainer(weighted).trainer, trainer(()).trainer
  state, batch = begun(one)
  (added, metrics), grads = jax.jit(one.gradients)(state, batch)
  (loss, _), alone = jax.jit(plain.gradients)(state, batch)
  assert metrics["loss"] == loss
  values = [metrics[f"auxiliary/{x}"] for x in map(name_of, one.auxiliary)]
  assert float(added) == pytest.approx(loss + 0.5 * values[0] + 0.25 * values[1])
  along = jax.tree.map(jnp.subtract, grads, alone)
  size = sum(float(jnp.sum(x * x)) for x in jax.tree.leaves(along)) ** 0.5
  along = jax.tree.map(lambda x: x / size, along)

  @jax.jit
  def extra(step):
    params = jax.tree.map(lambda x, d: x + step * d, state.params, along)
    return one.loss(params, batch, state)[0] - plain.loss(params, batch, state)[0]

  slope = (extra(1e-2) - extra(-1e-2)) / 2e-2
  assert size > 0.01 and float(slope) == pytest.approx(size, rel=0.02)


def test_micro_batches_and_devices_take_the_step_of_the_batch():
  one = trainer(**NOISE).trainer
  state, batch = begun(one)
  batch = uneven(packed(batch))

  def taken(step, *args):
    after, metrics = step(*args)
    return after.params, metrics

  want = taken(jax.jit(one.step), state, batch)
  parts = dataclasses.replace(one, accumulate=4)
  close(taken(jax.jit(parts.step), state, batch), want, atol=5e-6)
  mesh = sharding.make_mesh(data=2)
  split = dataclasses.replace(one, constrain=lambda x: sharding.split_batch(mesh, x))
  with jax.set_mesh(mesh):
    close(taken(jax.jit(split.step), state, batch), want, atol=5e-6)
  devices = jax.devices()[:2]
  found = taken(pmap_step(one, devices), replicate(state, devices), batch)
  close(jax.tree.map(lambda x: x[0], found), want, atol=5e-6)


def test_scanned_and_recomputed_layers_have_the_same_losses():
  plain, other = (
    trainer(**more, **{"model.layers": 2}).trainer
    for more in ({}, {"model.scan": True, "model.remat": "full"})
  )
  state, batch = begun(other)
  _, params = capture.one_by_one_layers(other.model, state.params)
  moments = plain.optimizer.init(params)
  apart = State(state.step, params, moments, state.key)
  (want, metrics), _ = jax.jit(plain.gradients)(apart, batch)
  (found, others), grads = jax.jit(other.gradients)(state, batch)
  assert float(found) == pytest.approx(float(want), rel=1e-5)
  close(others, metrics, atol=1e-5)
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(grads))


def test_outputs_are_those_of_any_core():
  losses = ("head_diversity(output)", "head_diversity(subspace)")
  found = []
  for core in ("dense", "blockwise", "auto"):
    one = trainer(losses, **{"model.core": core}).trainer
    state, batch = begun(one)
    (loss, _), grads = jax.jit(one.gradients)(state, uneven(batch))
    found.append((loss, grads))
  close(found[1], found[0], atol=1e-5)
  close(found[2], found[0], atol=1e-5)


def test_a_batch_without_targets_teaches_nothing():
  one = trainer().trainer
  state, batch = begun(one)
  batch = dataclasses.replace(batch, weight_BL=jnp.zeros_like(batch.weight_BL))
  _, metrics = jax.jit(one.step)(state, batch)
  assert np.isnan(metrics["loss"]) and metrics["grad_norm"] == 0


def test_heads_without_output_have_a_gradient_of_zero():
  from transformer_jax.training.auxiliary import attention_entropy, head_disagreement

  zero = jnp.zeros((1, 2, 2, 3))
  assert not jax.grad(lambda x: head_disagreement.cosine(x).sum())(zero).any()
  grad = jax.grad(lambda x: attention_entropy.entropy(x).sum())(zero)
  assert np.isfinite(grad).all()


REFUSED = [
  ({"train.auxiliary": ("head_diversit",)}, "Did you mean 'head_diversity'"),
  ({"train.auxiliary": ("head_diversity(outputs)",)}, "write one of output, subspace"),
  ({"train.auxiliary": ("z_loss(weight='a')",)}, "write a number"),
  ({"train.auxiliary": (3,)}, "3 is no text"),
]
UNFIT = [
  ({"train.auxiliary": ("z_loss", "z_loss(weight=1)")}, "z_loss is there twice"),
  (
    {"train.auxiliary": ("attention_entropy",), "model.core": "blockwise"},
    "reads weights of attention, which core=blockwise never holds; write core=auto",
  ),
  (
    {"train.auxiliary": ("attention_entropy(where=cross)",)},
    "no attention layer of where='cross'; write where=decoder",
  ),
  (
    {"train.auxiliary": ("head_diversity",), "model.heads": 1},
    "it compares heads, and the model has one",
  ),
  (
    {"train.auxiliary": ("head_diversity(subspace)",), "model.attention": "mqa"},
    "it compares heads, and the model has one",
  ),
  (
    {"train.auxiliary": ("head_diversity",), "model.family": "recurrent"}
    | {"model.position": "none", "model.feedforward": 256},
    "a recurrent model has none, or one query at a time; use a loss on state or log_z",
  ),
]


@pytest.mark.parametrize("changes, words", REFUSED)
def test_a_wrong_spec_is_refused_with_what_to_write(changes, words):
  with pytest.raises(ConfigError, match="train.auxiliary=") as error:
    validate(resolve(base.get_config(), SMALL | changes))
  assert words in str(error.value)


@pytest.mark.parametrize("changes, words", UNFIT)
def test_a_loss_that_the_model_has_no_arrays_for_is_refused(changes, words):
  with pytest.raises(ConfigError, match="train.auxiliary=") as error:
    build(resolve(base.get_config(), SMALL | changes))
  assert words in str(error.value)


OWN = """
import dataclasses
import jax.numpy as jnp
from transformer_jax.training.auxiliary import AuxiliaryLoss

@dataclasses.dataclass(frozen=True)
class Norm(AuxiliaryLoss):
  weight: float = 0.01
  places = ("update",)

  def loss(self, arrays):
    x_BLD = arrays.captured["update"]["decoder/layer_0/attention"]
    return arrays.mean(jnp.sum(x_BLD**2, axis=-1), "decoder")

@dataclasses.dataclass(frozen=True)
class Exploding(Norm):
  past: float = 0.5

  def loss(self, arrays):
    norm = super().loss(arrays)
    return jnp.where(norm > self.past, jnp.nan, norm)

@dataclasses.dataclass(frozen=True)
class ByToken(Norm):
  def loss(self, arrays):
    return arrays.captured["update"]["decoder/layer_0/attention"][..., 0]

@dataclasses.dataclass(frozen=True)
class PlainMean(Norm):
  def loss(self, arrays):
    return jnp.mean(arrays.captured["update"]["decoder/layer_0/attention"] ** 2)

@dataclasses.dataclass(frozen=True)
class Elsewhere(Norm):
  places = ("updates",)

@dataclasses.dataclass(frozen=True)
class Misspelt(AuxiliaryLoss):
  def losss(self, arrays):
    return 0.0

@dataclasses.dataclass(frozen=True)
class Failing(Norm):
  def loss(self, arrays):
    return arrays.captured["update"]["decoder/layer_7/attention"].sum()
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
  """Writes a user's file of losses."""
  monkeypatch.syspath_prepend(tmp_path)
  (tmp_path / "losses_of_test.py").write_text(OWN)
  importlib.invalidate_caches()
  yield
  sys.modules.pop("losses_of_test", None)


def test_a_loss_of_ones_own_adds_up_over_micro_batches(own):
  one = trainer(("losses_of_test:Norm(weight=0.1)",)).trainer
  state, batch = begun(one)
  want = jax.jit(one.gradients)(state, packed(batch))
  parts = dataclasses.replace(one, accumulate=4)
  found = jax.jit(parts.gradients)(state, packed(batch))
  close(found, want, atol=1e-5)
  assert found[0][1]["auxiliary/norm"] > 0


@pytest.mark.parametrize(
  "name, words",
  [
    ("ByToken", "losses_of_test:ByToken.*by_token.loss returns shape (4, 14)"),
    ("Elsewhere", "Elsewhere.places has 'updates'. Did you mean 'update'?"),
    ("Misspelt", "Misspelt.losss is not a hook of AuxiliaryLoss"),
    ("Failing", "failing.loss fails in line"),
  ],
)
def test_a_wrong_loss_of_ones_own_is_refused_at_the_start(own, name, words):
  with pytest.raises(ConfigError) as error:
    trainer((f"losses_of_test:{name}",))
  for part in words.split(".*"):
    assert part in str(error.value)


def test_a_mean_of_a_part_is_refused_where_parts_are_added(own):
  spec = ("losses_of_test:PlainMean",)
  assert trainer(spec).trainer.auxiliary
  with pytest.raises(ConfigError, match="its parts add up to .* write arrays.mean"):
    trainer(spec, **{"train.accumulate": 2})


def test_a_run_logs_each_loss_and_names_the_one_that_is_not_a_number(own, tmp_path):
  changes = {
    **SMALL,
    "train.auxiliary": ("z_loss", "losses_of_test:Exploding(past=0.6)"),
    "train.steps": 8,
    "train.steps_per_dispatch": 4,
    "train.checkpoint_every": 8,
    "train.optimizer": "adam(lr=0.05)",
    "evaluate.lengths": (1,),
    "evaluate.examples": 16,
    "seeds": (0,),
  }
  config = resolve(base.get_config(), changes)
  plain = resolve(config, {"train.auxiliary": ()})
  assert run_id(flatten(config)) != run_id(flatten(plain))
  assert run_id(flatten(plain)) == run_id(
    {key: x for key, x in flatten(plain).items() if key != "train.auxiliary"}
  )
  folder = tmp_path / "runs" / "one"
  folder.mkdir(parents=True)
  result = train.run(config, folder, "a run", stop=False)
  rows = [
    json.loads(row) for row in (folder / "metrics.jsonl").read_text().splitlines()
  ]
  assert rows[0]["auxiliary/z_loss"] > 0
  name = "auxiliary/exploding(past=0.6)"
  assert name in rows[0]
  (step,) = result["diverged"].values()
  assert result["diverged_by"] == {"0": name}
  reason = f"diverged at step {step}: {name} was not finite"
  assert {score["reason"] for score in result["scores"]} == {reason}


def test_only_an_auxiliary_loss_that_fails_first_is_a_cause():
  diverged, causes = {}, {}
  loss_SN = np.array([[1, 1, np.nan], [1, np.nan, np.nan], [1, 1, 1.0]])
  other_SN = np.array([[1, np.nan, np.nan], [1, np.nan, np.nan], [1, 1, 1.0]])
  metrics = {"loss": loss_SN, "auxiliary/z_loss": other_SN, "grad_norm": other_SN}
  dispatch_metrics.note_divergence(diverged, causes, 10, metrics, np.ones((3, 3), bool))
  assert diverged == {0: 9, 1: 9} and causes == {0: "auxiliary/z_loss"}
