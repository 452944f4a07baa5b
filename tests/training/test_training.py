"""Training: many devices, many seeds in one program, resuming, diverging."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_parameters

from transformer_jax.attention.cores import cores
from transformer_jax.axes import Dims
from transformer_jax.data.base import Batch, Task, tasks
from transformer_jax.models import Architecture, Transformer
from transformer_jax.numpy_interpreter import evaluate
from transformer_jax.positions import coords, positions
from transformer_jax.training import dispatch, loop, optimizers, seed_parts, sharding
from transformer_jax.training.checkpoint import Keeper
from transformer_jax.training.loss import cross_entropy
from transformer_jax.training.pmap import pmap_step, replicate
from transformer_jax.training.step import State, Trainer

SEEDS = (10, 4)
POISON = 0.06  # at which seed 10 meets its first bad batch in step 13, and seed 4 none


@dataclasses.dataclass(frozen=True)
class Cycle(Task):
  """Counts up modulo the vocabulary from a random start: learnt in a few steps.

  poison   chance that a batch is not a number
  """

  poison: float = 0.0
  vocabulary = 8

  def tokens(self, length):
    return length

  def batch(self, arrays, key, batch_size, length, progress=1.0):
    start_B1 = jax.random.randint(key, (batch_size, 1), 0, 8)
    token_BL = (start_B1 + jnp.arange(length + 1)) % 8
    bad = jax.random.uniform(jax.random.fold_in(key, 1)) < self.poison
    weight_BL = jnp.where(bad, jnp.nan, jnp.ones((batch_size, length)))
    weight_BL = weight_BL.at[0, 0].set(0.0)  # devices hold different numbers of targets
    at = coords.consecutive(1, length)
    return Batch(token_BL[:, :-1], token_BL[:, 1:], weight_BL, at)


@functools.cache
def trainer(position="t5", poison=0.0, scan=False, ema=0.0):
  task = Cycle(poison)
  dims = Dims(V=8, D=16, H=4, F=32, L=8)
  arch = Architecture(
    dims, positions.build(position), cores.build("dense"), decoders=1 + scan, scan=scan
  )
  optimizer, rate = optimizers.build("adamw(lr=1e-2)", "cosine(warmup=2)", 1.0, 40, 16)
  return Trainer(
    Transformer(arch), task, optimizer, rate, batch_size=8, length=8, ema=ema
  )


@functools.cache
def reader():
  """Returns a trainer whose model reads a source: it copies two symbols of two."""
  task = tasks.build("pairs(copy(symbols=2))")
  dims = Dims(V=task.vocabulary, D=16, H=4, F=32, L=task.tokens(2))
  position, core = positions.build("t5"), cores.build("dense")
  model = Transformer(Architecture(dims, position, core, encoders=1, decoders=1))
  optimizer, rate = optimizers.build("adamw(lr=2e-2)", "constant", 1.0, 40, 16)
  return Trainer(model, task, optimizer, rate, batch_size=16, length=2)


@functools.cache
def program(mesh=(1, 1), seeds=SEEDS, count=4, **kwargs):
  mesh = sharding.make_mesh(*mesh)
  return dispatch.compile_steps(trainer(**kwargs), seeds, (), mesh, count)


def close(got, want, atol=1e-5):
  # Sums over devices add in another order; Adam divides by small roots.
  compare = functools.partial(np.testing.assert_allclose, atol=atol, rtol=1e-4)
  jax.tree.map(compare, got, want)


@pytest.mark.parametrize(
  "mesh,scan", [pytest.param((8, 1), False, marks=pytest.mark.slow), ((2, 4), True)]
)
def test_a_mesh_gives_the_numbers_of_one_device(mesh, scan):
  want, want_metrics = program(scan=scan)((), program(scan=scan).init())
  split = program(mesh, scan=scan)
  got, got_metrics = split((), split.init())
  close(got.params, want.params)
  close(got_metrics, want_metrics)


@functools.cache
def step_of_reader():
  """Returns a state, its batch, and the state and metrics after one step."""
  one = reader()
  params = random_parameters.normal(one.shapes.params, 0.2)
  moments = jax.jit(one.optimizer.init)(params)
  state = State(jnp.int32(0), params, moments, jax.random.key(3), None)
  batch = evaluate(lambda state: one.batch((), state), state)
  return state, batch, *jax.jit(one.step)(state, batch)


@pytest.mark.slow  # quick: a decoder on a mesh above, this model on devices below
def test_an_encoder_decoder_on_a_mesh_has_the_loss_of_one_device():
  mesh, (state, batch, _, want) = sharding.make_mesh(2, 2), step_of_reader()
  params = jax.device_put(state.params, sharding.split(mesh, state.params))
  specs = [tuple(x.sharding.spec) for x in jax.tree.leaves(params)]
  assert any("tensor" in spec for spec in specs)
  loss = lambda *args: reader().loss(*args, state)[0]
  # Programs of gradients are compared above for a decoder, in `slow` for this model.
  with jax.set_mesh(mesh):
    split = jax.jit(
      lambda params, batch: loss(params, sharding.split_batch(mesh, batch))
    )
    close(split(params, batch), want["loss"])


@pytest.mark.slow
def test_an_encoder_decoder_learns_from_its_source_on_a_mesh_as_on_one_device():
  meshes = [sharding.make_mesh(*shape) for shape in ((1, 1), (2, 2))]
  one, split = (dispatch.compile_steps(reader(), (3,), (), mesh, 40) for mesh in meshes)
  state, metrics = one((), one.init())
  loss_N = metrics["loss"][0]
  # Blind to the source, the best guess costs 2.5 ln 2 for every 2.5 targets.
  assert loss_N[:3].mean() > 1.0 and loss_N[-5:].mean() < 0.45
  got, got_metrics = split((), split.init())
  close(got_metrics["loss"][0, :8], loss_N[:8])


def test_a_mesh_splits_parameters_and_moments_by_their_names():
  state = program((2, 4), scan=True).init()
  attention = state.params["decoder"]["layers"]["attention"]
  moments = state.moments[1][0].mu["decoder"]["layers"]["attention"]
  for tree in (attention, moments):
    spec = tree["query_DHK"].sharding.spec
    assert tuple(spec)[:4] == ("seed", None, "fsdp", "tensor")  # S, layers, D, H
  assert tuple(state.params["embedding_VD"].sharding.spec)[1:] == ("tensor", "fsdp")
  gain_D = state.params["decoder"]["final_norm"]["gain_D"]
  assert tuple(gain_D.sharding.spec) in (("seed",), ("seed", None)), (
    "vectors stay whole"
  )
  with pytest.raises(ValueError, match="mesh.tensor=8 does not divide the axis of 4"):
    program((1, 8))
  with pytest.raises(ValueError, match="mesh.data=16: only 8 devices here"):
    sharding.make_mesh(16, 1)


def test_pmap_gives_the_numbers_of_one_device():
  one, devices = reader(), jax.devices()[:4]
  state, batch, want, want_metrics = step_of_reader()
  got, got_metrics = pmap_step(one, devices)(replicate(state, devices), batch)
  for n in range(4):
    close(jax.tree.map(lambda x, n=n: x[n], got.params), want.params)
    close(jax.tree.map(lambda x, n=n: x[n], got_metrics), want_metrics)
  with pytest.raises(ValueError, match="16 rows does not divide over 3 devices"):
    pmap_step(one, devices[:3])(replicate(state, devices[:3]), batch)


def seed_of(tree, n):
  """Returns a seed's own part of a tree that is stacked over seeds."""
  return jax.tree.map(lambda x: x[n], tree)


# Fewer seeds in another order; slow: all of them in another order, and one alone.
MANY = (10, 9, 8, 7, 6, 5, 4)
SIDES = [((0, 1, 2), [(2, 1)])]
SIDES += [pytest.param(MANY, [MANY[::-1], MANY[1:2]], marks=pytest.mark.slow)]


@pytest.mark.parametrize(("together", "others"), SIDES)
def test_a_seed_has_the_same_bits_whatever_seeds_are_beside_it(together, others):
  first = program(seeds=together)
  done, metrics = first((), first.init())
  for seeds in others:
    other = program(seeds=seeds)
    state, own = other((), other.init())
    for place, seed in enumerate(seeds):
      there = together.index(seed)
      assert bits(seed_of(state, place)) == bits(seed_of(done, there))
      assert bits(seed_of(own, place)) == bits(seed_of(metrics, there))
  assert len({float(x) for x in metrics["loss"][:, 0]}) == len(together)


def test_where_all_seeds_are_one_program_it_has_the_numbers_of_each(monkeypatch):
  apart, metrics = program()((), program().init())
  monkeypatch.setattr(seed_parts, "together", lambda seeds: seeds)
  whole = dispatch.compile_steps(trainer(), SEEDS, (), sharding.make_mesh(), 4)
  assert whole.together == 2 and whole.peak_bytes
  state, own = whole((), whole.init())
  close(state.params, apart.params)
  close(own["loss"], metrics["loss"])


def fit(folder, steps=20, stop_at=None, save=8, made=None, **kwargs):
  """Trains; returns (FitResult, rows reported, steps resumed from)."""
  rows, resumed = [], []

  class Stop:
    def __bool__(self):
      return stop_at is not None and bool(rows) and rows[-1].step >= stop_at

  with Keeper(folder) as keeper:
    found = loop.fit(
      made or program(**kwargs), (), loop.Budget(steps, 4, save), keeper, rows.append,
      resumed.append, Stop(),
    )  # fmt: skip
  return found, rows, resumed[0]


def bits(tree):
  """Returns the bytes of every leaf; a key's are its data."""
  is_key = lambda x: jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
  plain = lambda x: jax.random.key_data(x) if is_key(x) else x
  return [np.asarray(plain(x)).tobytes() for x in jax.tree.leaves(tree)]


def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path):
  whole, rows, start = fit(tmp_path / "whole")
  assert whole.finished and whole.step == 20 and start == 0
  assert [row.step for row in rows] == [4, 8, 12, 16, 20]
  stopped, first, _ = fit(tmp_path / "stopped", stop_at=8)
  assert not stopped.finished and stopped.step < 20
  again, second, start = fit(tmp_path / "stopped")
  assert start == stopped.step and again.finished
  assert bits(again.state) == bits(whole.state)
  want = {row.step: row.metrics["loss"] for row in rows}
  for row in first + second:
    np.testing.assert_array_equal(row.metrics["loss"], want[row.step])
  once_more, rows, start = fit(tmp_path / "stopped")
  assert start == 20 and rows == [] and bits(once_more.state) == bits(whole.state)


def test_leaves_that_share_a_buffer_are_named_before_the_first_dispatch(tmp_path):
  state = program().init()
  shared = dataclasses.replace(state, ema_params=state.params)
  never = dataclasses.replace(program(), init=lambda: shared, run=None)
  budget, ignore = loop.Budget(8, 4, 8), lambda *_: None
  with Keeper(tmp_path) as keeper, pytest.raises(ValueError) as error:
    loop.fit(never, (), budget, keeper, ignore, ignore, False)
  name = r"decoder\S+"
  wanted = (
    rf"params\.{name} and ema_params\.{name} of the state are one array.* jnp.copy"
  )
  assert re.match(wanted, str(error.value)), error.value
  loop.check_buffers(dataclasses.replace(shared, ema_params=None))


def test_it_learns(tmp_path):
  found, rows, _ = fit(tmp_path, steps=40)
  assert rows[0].metrics["loss"].min() > 1.0
  assert rows[-1].metrics["loss"].max() < 0.3
  assert rows[-1].metrics["accuracy"].min() > 0.9


def test_a_seed_that_diverges_is_named_with_its_step_and_others_go_on(tmp_path):
  found, _, _ = fit(tmp_path, stop_at=4, poison=POISON)
  assert found.diverged == {} and not found.finished
  found, rows, start = fit(tmp_path, poison=POISON)
  # The step is the first bad one, not the end of the dispatch in which it came up.
  assert found.diverged == {0: 13} and found.finished and found.step == 20
  loss_SN = np.stack([row.metrics["loss"] for row in rows], axis=1)
  assert np.isfinite(loss_SN[1]).all() and np.isnan(loss_SN[0, -1])


def test_a_stopped_run_remembers_which_seed_had_diverged(tmp_path):
  stopped, _, _ = fit(tmp_path, stop_at=12, save=20, poison=POISON)
  assert stopped.step == 16 and not stopped.finished
  again, _, start = fit(tmp_path, save=20, poison=POISON)
  assert start == 16 and again.diverged == {0: 13}


def test_training_ends_when_every_seed_has_diverged(tmp_path):
  lost = program(poison=POISON)

  def run(arrays, state, windows):
    state, metrics = lost.run(arrays, state, windows)
    return state, metrics | {"loss": metrics["loss"] * jnp.nan}

  found, rows, _ = fit(tmp_path, made=dataclasses.replace(lost, run=run))
  assert found.diverged == {0: 1, 1: 1} and found.finished and found.step < 20


@pytest.mark.parametrize(
  "spec,points",
  [
    ("constant(warmup=4)", {2: 0.5, 4: 1.0, 99: 1.0}),
    ("cosine(warmup=10, final=0.2)", {5: 0.5, 10: 1.0, 55: 0.6, 100: 0.2}),
    ("wsd(warmup=10, decay=0.3)", {5: 0.5, 10: 1.0, 69: 1.0, 85: 0.5, 100: 0.0}),
  ],
)
def test_schedules_pass_through_the_points_of_their_definition(spec, points):
  rate = optimizers.schedules.build(spec).build(2.0, 100, 64)
  for step, share in points.items():
    np.testing.assert_allclose(rate(step), 2.0 * share, atol=0.04 * (step == 69) + 1e-6)


def test_noam_is_the_papers_equation():
  rate = optimizers.schedules.build("noam(warmup=4000)").build(1.0, 1, 512)
  for step in (1, 100, 4000, 100_000):
    want = 512**-0.5 * min(step**-0.5, step * 4000**-1.5)
    np.testing.assert_allclose(rate(step - 1), want, rtol=1e-6)


def test_only_matrices_decay_and_gradients_are_clipped():
  optimizer, _ = optimizers.build(
    "adamw(lr=0.1, weight_decay=0.5)", "constant", 0.0, 1, 4
  )
  shapes = {"query_DHK": (2, 2, 2), "gain_D": (2,), "growth": ()}
  params = {name: jnp.ones(shape) for name, shape in shapes.items()}
  still = jax.tree.map(jnp.zeros_like, params)
  update = lambda how, grads, params: how.update(grads, how.init(params), params)[0]
  update = jax.jit(update, static_argnums=0)
  updates = update(optimizer, still, params)
  np.testing.assert_allclose(updates["query_DHK"], -0.05)
  assert not np.any(updates["gain_D"]) and not np.any(updates["growth"])
  clipped, _ = optimizers.build("adam(lr=1.0, eps=1e9)", "constant", 1.0, 1, 4)
  grads = {"w_D": jnp.full(4, 50.0)}
  updates = update(clipped, grads, grads)
  np.testing.assert_allclose(updates["w_D"], -0.5e-9, rtol=1e-5)


def test_label_smoothing_is_cross_entropy_with_the_smoothed_target():
  logits_BLV = np.random.default_rng(0).normal(size=(2, 3, 5)).astype(np.float32)
  target_BL = np.array([[0, 1, 2], [4, 3, 0]])
  log_p_BLV = logits_BLV - np.log(np.exp(logits_BLV).sum(-1, keepdims=True))
  loss = jax.jit(cross_entropy, static_argnums=2)
  for smoothing in (0.0, 0.1):
    p_BLV = np.eye(5)[target_BL] * (1 - smoothing) + smoothing / 5
    want = -(p_BLV * log_p_BLV).sum(-1)
    np.testing.assert_allclose(loss(logits_BLV, target_BL, smoothing), want, atol=1e-6)
