"""A training batch without a target has no gradient, and no seed diverges by it.

Reported: its loss was 0 / 0, the parameters became NaN, and the seed "diverged". The
translation task trained so at every step where no pair fits into the length.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import one_program
import pytest

from transformer_jax.attention.cores import cores
from transformer_jax.axes import Dims
from transformer_jax.data.base import Batch, Task, tasks
from transformer_jax.data.files import DataError
from transformer_jax.data.tasks.language import pair_rows
from transformer_jax.data.token_cache import Tokenized
from transformer_jax.evaluation.lengths import Evaluator
from transformer_jax.models import Architecture, Transformer
from transformer_jax.positions import coords, positions
from transformer_jax.training import (
  dispatch,
  dispatch_metrics,
  loop,
  optimizers,
  sharding,
)
from transformer_jax.training.checkpoint import Keeper
from transformer_jax.training.step import Trainer


@dataclasses.dataclass(frozen=True)
class Rare(Task):
  """Of each four batches one has targets."""

  vocabulary = 5

  def tokens(self, length):
    return length

  def batch(self, arrays, key, batch_size, length, progress=1.0):
    token_BL = jax.random.randint(key, (batch_size, length), 0, 5)
    weight = (
      jnp.round(progress * 8) % 4 == 1
    ) * 1.0  # of eight steps: the 1st and the 5th
    weight_BL = jnp.full((batch_size, length), weight)
    return Batch(token_BL, token_BL, weight_BL, coords.consecutive(1, length))


@functools.cache
def trainer():
  dims = Dims(V=5, D=8, H=2, F=8, L=4)
  arch = Architecture(dims, positions.build("none"), cores.build("dense"), decoders=1)
  how = optimizers.build("adamw(lr=0.01, weight_decay=0.1)", "constant", 1.0, 8, 8)
  return Trainer(Transformer(arch), Rare(), *how, batch_size=2, length=4, planned=8)


@functools.cache
def step():
  own = trainer()
  return jax.jit(lambda state: own.step(state, own.batch((), state)))


@functools.cache
def first():
  return jax.jit(trainer().init)(0)


def test_a_step_without_a_target_has_a_gradient_of_zero():
  state = first()
  before = dataclasses.replace(state, step=jnp.int32(1))
  learned, metrics = step()(before)  # moments are not zero from here on
  assert np.isfinite(metrics["loss"])
  after, metrics = step()(learned)
  assert metrics["targets"] == 0
  assert np.isnan([metrics["loss"], metrics["accuracy"]]).all()
  assert metrics["grad_norm"] == 0
  assert after.step == 3
  zero = jax.tree.map(jnp.zeros_like, learned.params)
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-8)
  update, moments = jax.jit(trainer().optimizer.update)(
    zero, learned.moments, learned.params
  )
  jax.tree.map(close, after.moments, moments)
  jax.tree.map(close, after.params, jax.tree.map(jnp.add, learned.params, update))


def test_a_loss_that_is_nan_has_no_accuracy():
  state = dataclasses.replace(first(), step=jnp.int32(1))
  lost = jax.tree.map(lambda x: x * jnp.nan, state.params)
  _, metrics = step()(dataclasses.replace(state, params=lost))
  assert metrics["targets"] == 8
  assert np.isnan([metrics["loss"], metrics["accuracy"]]).all()


def test_no_seed_diverges_and_means_are_over_the_other_steps(tmp_path):
  rows = []
  mesh = sharding.make_mesh(1)
  program = dispatch.compile_steps(trainer(), (0, 1), (), mesh, 4)
  with Keeper(tmp_path) as keeper:
    budget = loop.Budget(8, 4, 8)
    fitted = loop.fit(
      program, (), budget, keeper, rows.append, lambda step: None, stop=False
    )
  assert fitted.finished
  assert not fitted.diverged
  assert [row.diverged for row in rows] == [0, 0]
  state, _ = step()(dataclasses.replace(first(), step=jnp.int32(0)))
  _, metrics = step()(state)
  np.testing.assert_allclose(rows[0].metrics["loss"][0], metrics["loss"], rtol=1e-5)
  assert "targets" not in rows[0].metrics


def test_a_dispatch_without_a_target_has_no_loss_and_a_bad_loss_still_diverges():
  taught_SN = np.array([[False, False], [True, False], [True, True]])
  loss_SN = np.array([[np.nan, np.nan], [2.0, np.nan], [1.0, np.nan]], np.float32)
  mean_S = dispatch_metrics.mean_of_steps(loss_SN, taught_SN)
  np.testing.assert_array_equal(mean_S, np.array([np.nan, 2, np.nan], np.float32))
  diverged = {}
  dispatch_metrics.note_divergence(diverged, {}, 8, {"loss": loss_SN}, taught_SN)
  assert diverged == {2: 8}


def pairs(*sizes):
  """Returns arrays of pairs with so many tokens on each side."""
  sides = [([5] * n, [6] * n) for n in sizes]
  size_D = np.array([len(side) for pair in sides for side in pair])
  token_N = np.concatenate([side for pair in sides for side in pair])
  tokens = Tokenized(None, {"train": token_N}, {"train": size_D})
  data = pair_rows.arrays_of(tokens, "train", np.arange(len(sides)))
  data |= {"ends_2": np.array([1, 2], np.int32)}
  return {"train": data, "scored": data}


def test_a_length_below_the_shortest_pair_is_refused_before_training():
  task = tasks.build("translation('nowhere', tokenizer='byte')")
  with pytest.raises(DataError, match="the shortest needs 8: write train.length=8 or"):
    task.check(pairs(9, 7, 12), 7)
  task.check(pairs(9, 7, 12), 8)
  with pytest.raises(DataError, match="no training pair of 'nowhere' fits into 4"):
    task.batch(pairs(7), jax.random.key(0), 8, 4)


def test_a_length_without_a_pair_has_no_score():
  task, arrays = tasks.build("translation('nowhere', tokenizer='byte')"), pairs(7, 9)
  score = jax.jit(lambda length: task.score(arrays, jax.random.key(0), 8, length, 12))
  for length, count in ((4, 0), (8, 1), (12, 2)):
    batch = score(length)
    assert int((batch.weight_BL > 0).any(axis=1).sum()) == count

  class Never:
    def apply(self, variables, token_BL, *rest):
      return jax.nn.one_hot(token_BL, 300)

  evaluator = Evaluator(Never(), task, 8, 8)
  program = jax.jit(functools.partial(one_program.scores, evaluator, bucket=12))
  scores, examples, *_ = program({}, arrays, jnp.int32(4))
  assert examples == 0
  assert np.isnan(scores["accuracy", "mean"])
