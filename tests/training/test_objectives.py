"""Objectives: numbers as targets against slow NumPy, and cross-entropy as it was."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import special, stats

from transformer_jax.axes import Dims
from transformer_jax.data.base import Batch, Task
from transformer_jax.evaluation.lengths import Evaluator
from transformer_jax.evaluation.measures import measures
from transformer_jax.models import Architecture, Transformer
from transformer_jax.positions import coords
from transformer_jax.spec import SpecError
from transformer_jax.training import loss
from transformer_jax.training.objectives import objective_of, objectives, output_size
from transformer_jax.training.step import Trainer

RNG = np.random.default_rng(0)
B, L, N, D = 3, 4, 2, 5


@dataclasses.dataclass(frozen=True)
class Doubling(Task):
  """A user's task: the sum of the numbers so far, twice, from a series of numbers."""

  objective: str = "squared_error"
  target_numbers: int = 2
  vocabulary = 1
  measures = ("mae", "mse")

  def tokens(self, length):
    return length

  def example(self, length):
    return jnp.zeros((1, length, 1))

  def batch(self, arrays, key, batch_size, length, progress=1.0):
    x_BL1 = jax.random.normal(key, (batch_size, length, 1))
    target_BLN = jnp.repeat(jnp.cumsum(x_BL1, axis=1), 2, axis=2) * jnp.array([1, 2])
    weight_BL = jnp.ones((batch_size, length))
    return Batch(x_BL1, target_BLN, weight_BL, coords.consecutive(1, length))

  def score(self, arrays, key, batch_size, length, bucket):
    return self.batch(arrays, key, batch_size, bucket)


def model_of(task, embedding="numbers"):
  dims = Dims(V=1, D=16, H=2, F=32, L=8)
  outputs = output_size(task)
  arch = Architecture(
    dims, position="none", embedding=embedding, decoders=1, tied=False, classes=outputs
  )
  return Transformer(arch)


def trainer_of(task, rate=1e-2, **options):
  schedule = optax.constant_schedule(rate)
  options = {"batch_size": 16, "length": 4} | options
  return Trainer(model_of(task), task, optax.adam(schedule), schedule, **options)


def slow(spec, output_P, y):
  """Loss and prediction of one number, from the definitions."""
  if spec == "squared_error":
    return (output_P[0] - y) ** 2, output_P[0]
  if spec == "gaussian":
    mean, s = output_P[0], math.log(1 + math.exp(output_P[1])) + 1e-3
    return -stats.norm.logpdf(y, mean, s), mean
  if spec == "digits":
    text = f"{min(abs(y), 99.99):05.2f}".replace(".", "")
    parts = [output_P[:2], *np.split(output_P[2:], 4)]
    labels = [int(y < 0), *map(int, text)]
    said = [int(part.argmax()) for part in parts]
    number = int("".join(map(str, said[1:]))) / 100 * (-1) ** said[0]
    terms = zip(parts, labels, strict=True)
    return -sum(special.log_softmax(part)[n] for part, n in terms), number
  pinball = [
    q * (y - x) if y > x else (1 - q) * (x - y)
    for q, x in zip((0.1, 0.5, 0.9), output_P, strict=True)
  ]
  return sum(pinball) / 3, output_P[1]


NUMBERS = [name for name in objectives if objectives.build(name).targets == "numbers"]


@pytest.mark.parametrize("spec", NUMBERS)
def test_numbers_against_the_definitions(spec):
  objective = objectives.build(spec)
  P = objective.per_number
  x_BLD, output_VD = RNG.normal(size=(B, L, D)), RNG.normal(size=(N * P, D))
  target_BLN = RNG.normal(size=(B, L, N))
  weight_BL = RNG.integers(0, 2, (B, L)) * 0.5
  weight_BL[0, 0] = 0
  target_BLN[0, 0] = np.nan  # a number that does not count may be missing
  losses, errors = np.zeros((B, L)), np.zeros((B, L))
  outputs_BLNP = (x_BLD @ output_VD.T).reshape(B, L, N, P)
  for b, t in np.ndindex(B, L):
    if weight_BL[b, t]:
      each = [slow(spec, outputs_BLNP[b, t, n], target_BLN[b, t, n]) for n in range(N)]
      losses[b, t] = np.mean([x for x, _ in each])
      y_N = target_BLN[b, t]
      errors[b, t] = np.mean([abs(x - y) for (_, x), y in zip(each, y_N, strict=True)])
  batch = Batch(*map(jnp.float32, (x_BLD, target_BLN, weight_BL)), at=None)
  run = lambda x_BLD: objective.sums(x_BLD, jnp.float32(output_VD), batch, 0.0, 1)
  (total, error), grad = jax.value_and_grad(run, has_aux=True)(jnp.float32(x_BLD))
  np.testing.assert_allclose(total, (losses * weight_BL).sum(), rtol=1e-4)
  np.testing.assert_allclose(error, (errors * weight_BL).sum(), rtol=1e-4)
  assert np.isfinite(grad).all() and np.any(grad)


@pytest.mark.parametrize("spec", objectives)
def test_sums_and_losses_are_one_objective(spec):
  """What training sums is what evaluation measures place by place."""
  objective = objectives.build(spec)
  numbers = objective.targets == "numbers"
  V = N * objective.per_number if numbers else 7
  x_BLD, output_VD = (RNG.normal(size=s).astype("f4") for s in ((B, L, D), (V, D)))
  target = RNG.normal(size=(B, L, N)) if numbers else RNG.integers(0, V, (B, L))
  target = jnp.asarray(target, jnp.float32 if numbers else jnp.int32)
  batch = Batch(x_BLD, target, RNG.random((B, L)).astype("f4"), at=None)
  places = objective.losses(x_BLD @ output_VD.T, target, batch.weight_BL)
  sums = objective.sums(x_BLD, output_VD, batch, 0.0, 2)
  for some, x_BL in zip(sums, places, strict=True):
    np.testing.assert_allclose(some, (x_BL * batch.weight_BL).sum(), rtol=1e-5)


def test_cross_entropy_is_the_chunked_one_to_the_bit():
  x_BLD, output_VD = (RNG.normal(size=s).astype("f4") for s in ((B, L, D), (7, D)))
  target_BL = jnp.asarray(RNG.integers(0, 7, (B, L)), jnp.int32)
  batch = Batch(x_BLD, target_BL, jnp.ones((B, L)), at=None)
  plain = loss.chunked_cross_entropy
  sums = objectives.build("cross_entropy").sums(x_BLD, output_VD, batch, 0.1, 2)
  wanted = plain(x_BLD, output_VD, target_BL, batch.weight_BL, 0.1, 2)
  assert [*map(float, sums)] == [*map(float, wanted)]


@pytest.mark.parametrize("objective", ["squared_error", "gaussian"])
def test_a_model_learns_numbers_and_is_scored_on_them(objective):
  task = Doubling(objective)
  trainer = trainer_of(task, accumulate=2)
  state = trainer.init(0)
  evaluator = Evaluator(trainer.model, task, examples=8, batch_size=4)

  def mse(state):
    params = jax.tree.map(lambda x: x[None], state.params)
    rows = evaluator.run(params, (), (4,))
    scores = {row["measure"]: row["value"] for row in rows if row["part"] == "mean"}
    assert set(scores) == {"mae", "mse"} and scores["mse"] >= scores["mae"] ** 2
    return scores["mse"]

  before = mse(state)
  state, metrics = jax.jit(lambda s: trainer.steps((), s, 150))(state)
  assert metrics["mae"][-1] < metrics["mae"][0] and "accuracy" not in metrics
  assert mse(state) < 0.4 * before


@pytest.mark.parametrize("spec", ["squared_error", "gaussian"])
def test_outputs_of_another_number_of_targets_are_not_broadcast(spec):
  outputs_BLV = jnp.ones((B, L, 4))  # of 4 numbers, or of 2
  with pytest.raises(ValueError, match=r"targets of shape \(3, 4, 1\); 1 numbers need"):
    objectives.build(spec).losses(outputs_BLV, jnp.ones((B, L, 1)), jnp.ones((B, L)))


def test_what_does_not_fit_is_one_sentence():
  with pytest.raises(SpecError, match="cross_entropy is of labels, and Doubling"):
    objective_of(Doubling("cross_entropy"))
  with pytest.raises(ValueError, match="label_smoothing=0.1 is of labels"):
    trainer_of(Doubling(), label_smoothing=0.1)
  with pytest.raises(SpecError, match="measure accuracy is of labels.*mae, mse"):
    Evaluator(
      model_of(Doubling()), Doubling(), 8, 4, measures=(measures.build("accuracy"),)
    )
  with pytest.raises(SpecError, match="between 0 and 1 that increase"):
    objectives.build("quantiles((0.9, 0.1))")
  with pytest.raises(SpecError, match=r"target_BL of shape \(4, 6, 2\).*\(4, 6, 3\)"):
    trainer_of(Doubling(target_numbers=3))
