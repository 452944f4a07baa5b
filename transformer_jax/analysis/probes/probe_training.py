"""Training of probes on frozen states: all layers at once, with a fixed budget."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from transformer_jax.analysis.probes.base import Probe
from transformer_jax.analysis.probes.predictions import Prediction


@dataclasses.dataclass(frozen=True)
class ProbeBudget:
  """Training of one probe: Adam, its rate falling to 0 along a cosine.

  steps            updates at each learning rate
  batch_size       samples of each
  learning_rates   first rates. A large one reads what stands in a few features in time;
                   what is faint is lost in its overconfidence, and needs a small one
  rounds           times that the loss of held-out samples is computed, and a few more
                   where they do not divide the steps; the parameters with the least one
                   of all rounds and rates are kept, the first ones, which guess,
                   included

  >>> ProbeBudget(steps=100, rounds=20).steps_per_round
  5
  """

  steps: int = 1000
  batch_size: int = 256
  learning_rates: tuple[float, ...] = (0.01, 0.003, 0.001)
  rounds: int = 20

  @property
  def steps_per_round(self) -> int:
    return max(1, self.steps // self.rounds)

  @property
  def optimizer(self) -> optax.GradientTransformation:
    return optax.adam(optax.cosine_decay_schedule(1.0, self.steps))


@dataclasses.dataclass(frozen=True)
class FeatureScale:
  """Mean and deviation of each feature, so that one rate fits all layers.

  >>> x_PID = np.array([[[1.0], [3.0]]])
  >>> FeatureScale.of(x_PID)(x_PID).tolist()
  [[[-1.0], [1.0]]]
  """

  mean_P1D: np.ndarray
  deviation_P1D: np.ndarray

  @classmethod
  def of(cls, x_PID: np.ndarray) -> "FeatureScale":
    """Returns the scale of samples; a feature that is constant is left alone."""
    deviation_P1D = x_PID.std(axis=1, keepdims=True)
    deviation_P1D = np.where(deviation_P1D > 1e-6, deviation_P1D, 1)
    return cls(x_PID.mean(axis=1, keepdims=True), deviation_P1D)

  def __call__(self, x_PID: np.ndarray) -> np.ndarray:
    return (x_PID - self.mean_P1D) / self.deviation_P1D


@dataclasses.dataclass(frozen=True)
class ProbeTrainer:
  """Trains a probe of each layer on each label, in one program.

  >>> from transformer_jax.analysis.probes.base import probes
  >>> from transformer_jax.analysis.probes.predictions import Classes
  >>> budget = ProbeBudget(40, batch_size=8, learning_rates=(0.3,), rounds=2)
  >>> trainer = ProbeTrainer(probes.build("linear"), Classes(2), budget)
  >>> x_PID, label_TI = jnp.array([[[-1.0], [1.0]]]), jnp.array([[0, 1]])
  >>> params = trainer.fit(jax.random.key(0), x_PID, label_TI, 2, x_PID, label_TI)
  >>> trainer.scores(params, x_PID, label_TI).tolist()
  [[[1.0, 1.0]]]
  """

  probe: Probe
  prediction: Prediction
  budget: ProbeBudget

  def fit(
    self,
    key: jax.Array,
    x_PID: Any,
    label_TI: Any,
    count: int,
    held_PID: Any,
    held_TI: Any,
  ) -> Any:
    """Returns the parameters, stacked by layer P and label T.

    key        of first parameters and batches
    x_PID      states, scaled
    label_TI   labels, or label_TIA
    count      number of samples, from the first, that are trained on
    held_PID, held_TI   held-out samples, which the parameters are chosen by
    """
    params = self.probe.init(key, np.shape(x_PID)[2], self.prediction.count)
    samples = x_PID, label_TI, held_PID, held_TI
    return _fit(self, params, self.batches(key, count), *samples)

  def batches(self, key: jax.Array, count: int) -> np.ndarray:
    """Returns the samples of the batch of each step, [N, B].

    They are drawn on the host. Programs that drew them themselves, compiled by jaxlib
    0.10.2 for a CPU, gave probes that all guess in about one of sixteen processes.
    """
    seed = np.asarray(jax.random.key_data(key)).tolist()
    shape = self.budget.steps, self.budget.batch_size
    return np.random.default_rng(seed).integers(0, count, shape, np.int32)

  def scores(self, params: Any, x_PID: Any, label_TI: Any) -> np.ndarray:
    """Returns the score of each sample, [P, T, I]."""
    return np.asarray(_apply(self, "score", params, x_PID, label_TI))

  def errors(self, params: Any, x_PID: Any, label_TI: Any) -> np.ndarray:
    """Returns the size of each sample's error, [P, T, I]; of ordered classes."""
    return np.asarray(_apply(self, "error", params, x_PID, label_TI))

  def nats(self, params: Any, x_PID: Any, label_TI: Any) -> np.ndarray:
    """Returns the cross-entropy of each sample, [P, T, I]."""
    return np.asarray(_apply(self, "loss", params, x_PID, label_TI))

  def loss(self, params: Any, x_ID: jax.Array, label_I: jax.Array) -> jax.Array:
    """Returns the mean cross-entropy of one probe."""
    return self.prediction.loss(self.probe.apply(params, x_ID), label_I).mean()

  def one(self, params, chosen_NB, x_ID, label_I, held_ID, held_I) -> Any:
    """Returns the parameters of one probe: `fit` of one layer and one label.

    params      first ones
    chosen_NB   samples of the batch of each step
    """
    samples = (x_ID, label_I, held_ID, held_I)
    at_rate = functools.partial(self._at_rate, params, chosen_NB, samples)
    params, loss_R = jax.lax.map(at_rate, jnp.array(self.budget.learning_rates))
    return jax.tree.map(lambda x: x[jnp.argmin(loss_R)], params)

  def _at_rate(self, params, chosen_NB, samples, rate) -> Any:
    """Returns the parameters with the least held-out loss at one rate, and the loss.

    params      first ones
    chosen_NB   samples of the batch of each step
    """
    x_ID, label_I, held_ID, held_I = samples
    optimizer = self.budget.optimizer

    def step(state, chosen_B):
      params, moments = state
      gradient = jax.grad(self.loss)(params, x_ID[chosen_B], label_I[chosen_B])
      update, moments = optimizer.update(gradient, moments, params)
      update = jax.tree.map(lambda x: rate * x, update)
      return (optax.apply_updates(params, update), moments), None

    def advance(state, chosen_SB):
      training, best, least = state
      training, _ = jax.lax.scan(step, training, chosen_SB)
      loss = self.loss(training[0], held_ID, held_I)
      better = loss < least
      keep = lambda new, old: jnp.where(better, new, old)
      best = jax.tree.map(keep, training[0], best)
      return (training, best, jnp.where(better, loss, least)), None

    training = params, optimizer.init(params)
    first = training, params, self.loss(params, held_ID, held_I)
    size = self.budget.steps_per_round
    rounds, rest = divmod(self.budget.steps, size)
    chosen_RSB = chosen_NB[: rounds * size].reshape(rounds, size, -1)
    reached, _ = jax.lax.scan(advance, first, chosen_RSB)
    if rest:  # a last round, of fewer steps
      reached, _ = advance(reached, chosen_NB[rounds * size :])
    _, best, least = reached
    return best, least


@functools.partial(jax.jit, static_argnums=0)
def _fit(trainer: ProbeTrainer, params, chosen_NB, x_PID, label_TI, held_PID, held_TI):
  of_label = jax.vmap(trainer.one, (None, None, None, 0, None, 0))
  of_layer = jax.vmap(of_label, (None, None, 0, None, 0, None))
  return of_layer(params, chosen_NB, x_PID, label_TI, held_PID, held_TI)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _apply(trainer: ProbeTrainer, name: str, params, x_PID, label_TI):
  # One after another: logits of all samples and layers at once take C times the memory.
  def of_layer(layer):
    params, x_ID = layer

    def of_label(one):
      params, label_I = one
      logits_IC = trainer.probe.apply(params, x_ID)
      return getattr(trainer.prediction, name)(logits_IC, label_I)

    return jax.lax.map(of_label, (params, label_TI))

  return jax.lax.map(of_layer, (params, x_PID))
