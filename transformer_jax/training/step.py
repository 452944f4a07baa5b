"""Training step as a pure function: vmap over seeds, jit, shard."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from transformer_jax.attention.cores import cores
from transformer_jax.batch_part import BatchPart, MicroBatch
from transformer_jax.data import task_probe
from transformer_jax.data.base import Batch, Task
from transformer_jax.data.windows import Recorder, Replayer, Starts, host_text
from transformer_jax.models import Transformer, capture
from transformer_jax.models.parameters import RUNNING
from transformer_jax.positions import coords
from transformer_jax.spec import check_seed
from transformer_jax.training import batch_statistics
from transformer_jax.training import loss as losses
from transformer_jax.training.accumulate import sum_of_parts
from transformer_jax.training.auxiliary import auxiliary_losses, auxiliary_probe
from transformer_jax.training.auxiliary.base import AuxiliaryLoss
from transformer_jax.training.auxiliary.terms import Terms, without_auxiliary
from transformer_jax.training.auxiliary.training_pass import TARGETS, weights_of
from transformer_jax.training.objectives import Objective, objective_of
from transformer_jax.training.running import replaced

INIT, DATA, NOISE = range(3)  # streams of random numbers of a seed


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
  """Training state: the values carried from step to step.

  Leaves may be stacked over seeds. No two leaves may share a buffer: a step donates its
  state, and a buffer is donated once. Copy an array that is stored twice, as in
  `jax.tree.map(jnp.copy, params)`; `loop.fit` checks it.

  step         number of steps taken
  params       parameters that the optimizer updates
  moments      state of the optimizer
  key          key of the seed, from which all its random numbers are drawn
  ema_params   moving average of `params`; None: not computed

  >>> params = {"gain_D": jnp.ones(2)}
  >>> state = State(jnp.int32(0), params, moments=(), key=jax.random.key(0))
  >>> state.eval_params is params
  True
  """

  step: jax.Array
  params: Any
  moments: Any
  key: jax.Array
  ema_params: Any = None

  @property
  def eval_params(self) -> Any:
    """Parameters that are scored, generate texts, are exported and started from."""
    params = self.params if self.ema_params is None else self.ema_params
    return without_auxiliary(params)

  def map_params(self, function: Callable[[Any], Any]) -> "State":
    """Returns the state with a function applied to its trees of parameters."""
    ema_params = None if self.ema_params is None else function(self.ema_params)
    return dataclasses.replace(
      self, params=function(self.params), ema_params=ema_params
    )


@dataclasses.dataclass(frozen=True)
class Trainer:
  """Training step of a model on a task. Its methods are pure functions.

  batch_size, length      training examples in a batch, and the task's length
  label_smoothing   probability moved from the target to all tokens alike
  planned           steps of the whole training, which curricula and schedules divide
  ema               decay of the moving average of the parameters; 0: no average
  axis              name of the axis that batches are split over inside `pmap`
  max_logits        logits held in memory at once; None: the default of one device
  constrain         splits a batch over devices
  accumulate        micro-batches that a batch is computed in, one after another; the
                    step is that of the whole batch
  auxiliary         losses that are added to the cross-entropy, or their specs

  Raises SpecError if a user's task does not do as it declares.

  >>> from transformer_jax.data.base import tasks
  >>> from transformer_jax.models import Architecture
  >>> from transformer_jax.axes import Dims
  >>> arch = Architecture(Dims(V=6, D=8, H=2, F=8, L=8), position="rope", decoders=1)
  >>> rate = optax.constant_schedule(1e-3)
  >>> trainer = Trainer(
  ...   Transformer(arch), tasks.build("copy(symbols=2)"), optax.adam(rate), rate,
  ...   batch_size=4, length=3,
  ... )
  >>> trainer.shapes.step
  ShapeDtypeStruct(shape=(), dtype=int32)
  """

  model: Transformer
  task: Task
  optimizer: optax.GradientTransformation
  rate: optax.Schedule
  batch_size: int
  length: int
  label_smoothing: float = 0.0
  planned: int = 1
  ema: float = 0.0
  axis: str | None = None
  max_logits: int | None = None
  constrain: Callable[[Batch], Batch] = lambda batch: batch
  accumulate: int = 1
  auxiliary: Sequence[AuxiliaryLoss | str] = ()

  def __post_init__(self):
    if self.batch_size % self.accumulate:
      raise ValueError(
        f"accumulate={self.accumulate} does not divide the batch_size of"
        f" {self.batch_size}; change one of them"
      )
    task_probe.check(self.task, ["batch"])
    built = tuple(map(auxiliary_losses.build, self.auxiliary))
    object.__setattr__(self, "auxiliary", built)
    if built:
      in_parts = self.accumulate > 1 or self.axis is not None
      auxiliary_probe.check(built, self.model, self.task, self.length, in_parts)
    refused = batch_statistics.refusal(self.task, self.batch_size, self.accumulate)
    if refused and self.model.arch.reads_batch:
      raise ValueError(refused)
    if self.label_smoothing and self.objective.targets != "labels":
      raise ValueError(
        f"label_smoothing={self.label_smoothing} is of labels, and the targets are"
        " numbers; write 0"
      )

  @functools.cached_property
  def objective(self) -> Objective:
    """The objective of the task."""
    return objective_of(self.task)

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
    # Parameters do not depend on the core, and a ring needs a mesh in use.
    arch = dataclasses.replace(self.model.arch, core=cores.build("dense"))
    model = self.model.clone(arch=arch)
    params = model.init(key_init, read, at, token_BL, at)["params"]
    params |= self.terms.init(key_init, self.model.arch.dims.D)
    ema_params = jax.tree.map(jnp.copy, params) if self.ema else None
    return State(jnp.int32(0), params, self.optimizer.init(params), key, ema_params)

  @property
  def terms(self) -> Terms:
    """The auxiliary losses, added up."""
    return Terms(tuple(map(auxiliary_losses.build, self.auxiliary)))

  @functools.cached_property
  def shapes(self) -> State:
    """The state of one seed, as shapes: tracing a model again would take a second."""
    return jax.eval_shape(self.init, 0)

  def shapes_of(self, seeds: int) -> State:
    """Returns the states of a number of seeds, stacked, as shapes."""
    stack = lambda x: jax.ShapeDtypeStruct((seeds, *x.shape), x.dtype)
    return jax.tree.map(stack, self.shapes)

  def batch(
    self, arrays: Any, state: State, windows: Sequence[jax.Array] = ()
  ) -> Batch:
    """Returns the batch of this step: a function of the seed and the step alone.

    windows   of each read of a text that is on the host: see `reads`
    """
    if (text := host_text(arrays, self.task.streamed)) is not None:
      arrays = arrays | {self.task.streamed: Replayer(text, windows)}
    return self.constrain(self._draw(arrays, state))

  def reads(self, arrays: Any, state: State) -> list[tuple[Starts, int]]:
    """Returns starts and size of each read that the batch of this step makes.

    Only reads of a text on the host are listed, whose windows `batch` takes.
    """
    if (text := host_text(arrays, self.task.streamed)) is None:
      return []
    recorder = Recorder(text)
    self._draw(arrays | {self.task.streamed: recorder}, state)
    return recorder.reads

  def _draw(self, arrays: Any, state: State) -> Batch:
    seed_key = jax.random.fold_in(state.key, DATA)
    key = jax.random.fold_in(seed_key, state.step)
    arrays = self.task.at_step(arrays, seed_key, state.step)
    progress = self.progress(state)
    return self.task.batch(arrays, key, self.batch_size, self.length, progress)

  def progress(self, state: State) -> jax.Array:
    """Returns the share of all steps that is done."""
    return state.step / self.planned

  def step(self, state: State, batch: Batch) -> tuple[State, dict[str, jax.Array]]:
    """Returns the next state and the metrics of this step.

    A batch without a target teaches nothing: its gradient is 0, and its loss NaN.
    `targets` are how many there are, by weight.
    """
    (_, metrics), grads = self.gradients(state, batch)
    running = self.total(metrics.pop(RUNNING))
    grads = self.total(grads)
    updates, moments = self.optimizer.update(grads, state.moments, state.params)
    params = optax.apply_updates(state.params, updates)
    params = replaced(params, running, before=state.params)
    some, name = metrics["targets"] > 0, self.objective.metric
    loss = jnp.where(some, self.total(metrics["loss"]), jnp.nan)
    metrics |= {
      # The first of logits that are NaN is no choice.
      name: jnp.where(jnp.isnan(loss), jnp.nan, metrics[name]),
      "loss": loss,
      "grad_norm": optax.tree.norm(grads),
      "learning_rate": self.rate(state.step),
    }
    ema_params = self.average(state, params)
    return State(state.step + 1, params, moments, state.key, ema_params), metrics

  def average(self, state: State, params: Any) -> Any:
    """Returns the moving average after a step that gave `params`; None without one.

    Parameters of `age` steps ago have a weight proportional to ema^age: an exponential
    moving average without bias to the start. Kingma and Ba, 2015, section 7.2,
    https://arxiv.org/abs/1412.6980.
    """
    if not self.ema:
      return None
    # 1 - ema^n by expm1: the difference would have few digits where ema is near 1.
    sum_of_weights = -jnp.expm1((state.step + 1) * math.log(self.ema))
    newest = (1 - self.ema) / sum_of_weights

    def one(mean: jax.Array, x: jax.Array) -> jax.Array:
      return (mean + newest * (x - mean)).astype(mean.dtype)

    return jax.tree.map(one, state.ema_params, params)

  def gradients(self, state: State, batch: Batch) -> Any:
    """Returns ((loss, metrics), gradients) of a batch, as a sum over micro-batches.

    Each divides by the targets of the whole batch: the sum is its mean, however many
    targets a micro-batch has.
    """
    gradient = jax.value_and_grad(self.loss, has_aux=True)
    if self.accumulate == 1:
      return gradient(state.params, batch, state)
    counts = self.counts(batch)

    def of_part(own: Batch, part: MicroBatch) -> Any:
      return gradient(state.params, self.constrain(own), state, counts, part)

    (loss, metrics), grads = sum_of_parts(of_part, batch, self.accumulate)
    return (loss, metrics | {"targets": counts[TARGETS]}), grads

  def counts(self, batch: Batch) -> dict[str, jax.Array]:
    """Returns the divisors of a batch's means: its targets, by weight, and tokens."""
    weights = weights_of(batch) if self.auxiliary else {TARGETS: batch.weight_BL}
    return {name: self.total(jnp.sum(x_BL)) for name, x_BL in weights.items()}

  def loss(
    self,
    params: Any,
    batch: Batch,
    state: State,
    counts: Mapping[str, jax.Array] | None = None,
    part: BatchPart | None = None,
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns the mean loss of the task's objective over the places that count, if any.

    With the weighted auxiliary losses, if there is a target. Also the metrics, among
    them the objective alone as `loss`, and what becomes of parameters that no optimizer
    moves.

    counts   of the whole batch, from `counts`; None: those of this one
    part     of the whole batch that this is; None: all of it
    """
    hidden, captured = self._forward(
      params, batch, part, progress=self.progress(state), rngs=self.rngs(state)
    )
    (x_BLD, output_VD), changed = hidden
    max_logits = self.max_logits or losses.default_max_logits()
    B, L = batch.weight_BL.shape
    n = losses.num_chunks(B, L, output_VD.shape[0], max_logits)
    loss, metric = self.objective.sums(x_BLD, output_VD, batch, self.label_smoothing, n)
    counts = counts or self.counts(batch)
    count = counts[TARGETS]
    divisor = jnp.where(count > 0, count, 1.0)  # 0 / 0 would be the gradient's end
    metric, loss = self.total(metric / divisor), loss / divisor
    metrics = {"loss": loss, self.objective.metric: metric, "targets": count}
    metrics |= {RUNNING: changed.get(RUNNING, {})}
    if self.auxiliary:
      captured |= self.terms.of_logits(x_BLD, output_VD, n)
      added, values = self.terms(captured, batch, counts, params)
      loss += added
      metrics |= self.total(values)
    return loss, metrics

  def _forward(
    self, params: Any, batch: Batch, part: BatchPart | None, **options: Any
  ) -> tuple[Any, Any]:
    """Returns (result, arrays that auxiliary losses read) of a forward pass.

    options   of `model.apply`, and of `model.hidden`
    """
    model, places = self.model_of(part), self.terms.places
    options |= {"method": "hidden", "mutable": [RUNNING]}
    if places:
      return capture.run(model, params, *batch.reads, want=places, **options)
    return model.apply({"params": params}, *batch.reads, **options), {}

  def rngs(self, state: State) -> dict[str, jax.Array]:
    """Returns the keys of this step's random numbers, by what draws them."""
    noise = jax.random.fold_in(jax.random.fold_in(state.key, NOISE), state.step)
    return dict(zip(("dropout", "position"), jax.random.split(noise), strict=True))

  def model_of(self, part: BatchPart | None) -> Transformer:
    """Returns the model, which draws random numbers for a part of a batch."""
    if part is None:
      return self.model
    arch = dataclasses.replace(self.model.arch, part=part)
    return self.model.clone(arch=arch)

  def total(self, tree: Any) -> Any:
    """Sums over the devices of `pmap`; a mesh does that by itself."""
    return jax.lax.psum(tree, self.axis) if self.axis else tree

  def steps(
    self, arrays: Any, state: State, count: int, windows: Sequence[jax.Array] = ()
  ):
    """Takes `count` steps in one program; metrics are stacked by step.

    windows   of each read of a text that is on the host, stacked by step
    """

    def one(state, windows):
      return self.step(state, self.batch(arrays, state, windows))

    return jax.lax.scan(one, state, windows, length=count)
