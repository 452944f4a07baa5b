"""One training step, as a pure function: vmap it over seeds, jit it, shard it."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from transformer_jax.data import probe
from transformer_jax.data.base import Batch, Task
from transformer_jax.models import Transformer
from transformer_jax.positions import coords
from transformer_jax.spec import check_seed
from transformer_jax.training import loss as losses

INIT, DATA, NOISE = range(3)  # what the streams of random numbers of a seed are for


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
  """All that training carries from step to step. Leaves may be stacked over seeds."""

  step: jax.Array
  params: Any
  moments: Any
  key: jax.Array


@dataclasses.dataclass(frozen=True)
class Trainer:
  """A model, how it learns, and what from. Its methods are pure functions.

  batch_size, length      training examples in a batch, and the task's length
  label_smoothing   probability moved from the target to all tokens alike
  planned           steps of the whole training, which curricula and schedules divide
  axis              name of the axis that batches are split over inside `pmap`
  max_logits        logits held in memory at once; None: as many as suit one device

  Raises SpecError where a task of a user is not as it declares.
  """

  model: Transformer
  task: Task
  optimizer: optax.GradientTransformation
  rate: optax.Schedule
  batch_size: int
  length: int
  label_smoothing: float = 0.0
  planned: int = 1
  axis: str | None = None
  max_logits: int | None = None
  constrain: Callable[[Batch], Batch] = lambda batch: batch

  def __post_init__(self):
    probe.check(self.task, ["batch"])

  def init(self, seed: int | jax.Array) -> State:
    """Returns the first state of one seed, a number of up to 32 bits."""
    if isinstance(seed, int):
      check_seed(seed)
    key = jax.random.key(seed)
    token_BL = jnp.zeros((1, self.task.tokens(self.length)), jnp.int32)
    at = coords.consecutive(*token_BL.shape)
    at = at.replace(data={name: token_BL for name in self.model.arch.position.ids})
    key_init = jax.random.fold_in(key, INIT)
    # A model without an encoder leaves the source alone.
    read = self.task.example(self.length)
    params = self.model.init(key_init, read, at, token_BL, at)["params"]
    return State(jnp.int32(0), params, self.optimizer.init(params), key)

  @functools.cached_property
  def shapes(self) -> State:
    """The state of one seed, as shapes: tracing a model again would take a second."""
    return jax.eval_shape(self.init, 0)

  def batch(self, arrays: Any, state: State) -> Batch:
    """Returns the batch of this step: a function of the seed and the step alone."""
    key = jax.random.fold_in(jax.random.fold_in(state.key, DATA), state.step)
    done = self.done(state)
    return self.constrain(
      self.task.batch(arrays, key, self.batch_size, self.length, done)
    )

  def done(self, state: State) -> jax.Array:
    """Returns the share of all steps that is done."""
    return state.step / self.planned

  def step(self, state: State, batch: Batch) -> tuple[State, dict[str, jax.Array]]:
    """Returns the next state and the metrics of this step.

    A batch without a target teaches nothing: its gradient is 0, and its loss NaN.
    `targets` are how many there are, by weight.
    """
    gradient = jax.value_and_grad(self.loss, has_aux=True)
    (loss, metrics), grads = gradient(state.params, batch, state)
    grads = self.total(grads)
    updates, moments = self.optimizer.update(grads, state.moments, state.params)
    params = optax.apply_updates(state.params, updates)
    some = metrics["targets"] > 0
    loss = jnp.where(some, self.total(loss), jnp.nan)
    metrics |= {
      # The first of logits that are NaN is no choice.
      "accuracy": jnp.where(jnp.isnan(loss), jnp.nan, metrics["accuracy"]),
      "loss": loss,
      "grad_norm": optax.tree.norm(grads),
      "learning_rate": self.rate(state.step),
    }
    return State(state.step + 1, params, moments, state.key), metrics

  def loss(self, params: Any, batch: Batch, state: State):
    """Returns the mean cross-entropy in nats over the places that count, if any."""
    noise = jax.random.fold_in(jax.random.fold_in(state.key, NOISE), state.step)
    rngs = dict(zip(("dropout", "position"), jax.random.split(noise), strict=True))
    variables, done = {"params": params}, self.done(state)
    x_BLD, output_VD = self.model.apply(
      variables, *batch.reads, done=done, rngs=rngs, method="hidden"
    )
    max_logits = self.max_logits or losses.default_max_logits()
    n = losses.num_chunks(*batch.target_BL.shape, output_VD.shape[0], max_logits)
    loss, right = losses.chunked_cross_entropy(
      x_BLD, output_VD, batch.target_BL, batch.weight_BL, self.label_smoothing, n
    )
    count = self.total(jnp.sum(batch.weight_BL))
    divisor = jnp.where(count > 0, count, 1.0)  # 0 / 0 would be the gradient's end
    accuracy = self.total(right / divisor)
    return loss / divisor, {"accuracy": accuracy, "targets": count}

  def total(self, tree: Any) -> Any:
    """Sums over the devices of `pmap`; a mesh does that by itself."""
    return jax.lax.psum(tree, self.axis) if self.axis else tree

  def steps(self, arrays: Any, state: State, count: int):
    """Takes `count` steps in one program; metrics are stacked by step."""

    def one(state, _):
      return self.step(state, self.batch(arrays, state))

    return jax.lax.scan(one, state, length=count)
