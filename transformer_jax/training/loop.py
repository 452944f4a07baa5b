"""Training loop: dispatches, checkpoints, resuming, stopping."""

import collections
import contextlib
import dataclasses
import functools
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.stages import Lowered

from transformer_jax import global_arrays
from transformer_jax.devices import platform
from transformer_jax.mesh_shape import SEED
from transformer_jax.training import loss as losses
from transformer_jax.training import pmap, seed_parts, sharding, step_look, stream
from transformer_jax.training.auxiliary.terms import AUXILIARY
from transformer_jax.training.checkpoint import Keeper
from transformer_jax.training.checkpoint_note import named_leaves
from transformer_jax.training.step import State, Trainer
from transformer_jax.training.step_metrics import StepMetric
from transformer_jax.training.stream import TextStream, Windows

# Dispatches that may be under way at once. Enough to hide the host; more would hold
# memory, and simulated CPU devices deadlock in jax 0.10 beyond about 32.
IN_FLIGHT = 2


@dataclasses.dataclass(frozen=True)
class Budget:
  """How long to train: `steps` in dispatches of `per_dispatch`, saving every `save`.

  >>> Budget(steps=1000, per_dispatch=50, save=500)
  Budget(steps=1000, per_dispatch=50, save=500)
  """

  steps: int
  per_dispatch: int
  save: int


@dataclasses.dataclass(frozen=True)
class Program:
  """One dispatch of all seeds: `state, metrics = program(arrays, state)`.

  run          the compiled steps of `together` seeds, of (arrays, state, windows)
  init         returns the first state of all seeds
  abstract     shapes and shardings of the state of all seeds
  seconds      to compile
  peak_bytes   of memory; 0: unknown
  together     seeds of one call of `run`; 0: all
  stream       windows of a text on the host; None: all data are on the devices
  waiting      returns a context that times the waiting for windows
  look         step metrics of a dispatch's first step, of the arguments of `run`; None:
               none are asked for
  """

  run: Callable[[Any, State, Sequence[jax.Array]], tuple[State, dict[str, jax.Array]]]
  init: Callable[[], State]
  abstract: State
  seconds: float
  peak_bytes: int
  together: int = 0
  stream: TextStream | None = None
  waiting: Callable[[], AbstractContextManager] = contextlib.nullcontext
  look: Callable[[Any, State, Sequence[jax.Array]], dict[str, jax.Array]] | None = None

  def __call__(
    self, arrays: Any, state: State, windows: Windows | None = None
  ) -> tuple[State, dict[str, jax.Array]]:
    """Returns the next state of all seeds, and their metrics stacked by seed.

    windows   of this dispatch, from `windows_from`; None: it reads none
    """
    parts = seed_parts.split(state, self.together)
    parts, metrics = self.dispatch(arrays, parts, windows or [()] * len(parts))
    return seed_parts.join(parts), seed_parts.join(metrics)

  def windows_from(self, step: int) -> AbstractContextManager[Iterator[Windows]]:
    """Returns a context with the windows of each dispatch from a step on."""
    if self.stream is not None:
      return self.stream.from_step(step, self.waiting)
    seeds = self.abstract.step.shape[0]
    parts = seeds // self.together if self.together else 1
    return contextlib.nullcontext(itertools.repeat([()] * parts))

  def dispatch(
    self, arrays: Any, parts: list[State], windows: Windows
  ) -> tuple[list[State], list[dict[str, jax.Array]]]:
    """Returns the next states and their metrics, of parts of `together` seeds."""
    pairs = list(zip(parts, windows, strict=True))
    # Before the states are donated; waited for, so that few programs are under way.
    looks = [self.look(arrays, *each) if self.look else {} for each in pairs]
    jax.block_until_ready(looks)
    done = [self.run(arrays, *each) for each in pairs]
    metrics = [own | look for (_, own), look in zip(done, looks, strict=True)]
    return [state for state, _ in done], metrics


@dataclasses.dataclass
class DispatchMetrics:
  """Metrics of one dispatch: means over its steps, one value per seed.

  Steps whose batch has no target do not count. If no step has one, metrics are NaN.

  diverged   number of seeds that have diverged so far

  >>> def report(now):  # an argument of `fit`
  ...   print(f"step {now.step}: loss {now.metrics['loss'].mean():.2f}")
  >>> metrics = {"loss": np.array([2.5, 1.5])}  # of two seeds
  >>> report(DispatchMetrics(step=100, metrics=metrics, seconds=2.0, diverged=0))
  step 100: loss 2.00
  """

  step: int
  metrics: dict[str, np.ndarray]
  seconds: float
  diverged: int


@dataclasses.dataclass
class FitResult:
  """Result of training.

  diverged   first step with a loss that is not finite, by place of the seed
  finished   False if training stopped before the last step
  causes     auxiliary loss that was not finite while the cross-entropy was, by place

  >>> seeds = (10, 11, 12)  # the second one diverged at step 420
  >>> stopped = FitResult(state=None, step=500, diverged={1: 420}, finished=False)
  >>> [seed for place, seed in enumerate(seeds) if place not in stopped.diverged]
  [10, 12]
  """

  state: State
  step: int
  diverged: dict[int, int]
  finished: bool
  causes: dict[int, str] = dataclasses.field(default_factory=dict)

  def reason(self, place: int) -> str:
    """Returns a clause on a seed that diverged: when, and by which auxiliary loss.

    >>> FitResult(None, 9, {0: 4}, False, {0: "auxiliary/z_loss"}).reason(0)
    'diverged at step 4: auxiliary/z_loss was not finite'
    """
    cause = self.causes.get(place)
    why = f": {cause} was not finite" if cause else ""
    return f"diverged at step {self.diverged[place]}{why}"


def compile_steps(
  trainer: Trainer,
  seeds: tuple[int, ...],
  arrays: Any,
  mesh: Mesh,
  count: int,
  metrics: Sequence[StepMetric] = (),
  by_pmap: bool = False,
) -> Program:
  """Compiles one dispatch: `count` training steps of all seeds.

  On a CPU the program is that of one seed, so that the numbers of a seed do not depend
  on the seeds beside it, or of one seed for each device along the mesh axis `seed`;
  elsewhere it trains all of them at once.

  trainer   the pure step, which is mapped over seeds
  seeds     seeds of the runs, one state each
  arrays    the task's data, on the devices; its shapes are compiled in
  mesh      devices; parameters are split by axis names, batches by examples
  count     steps per dispatch
  metrics   of the first step of each dispatch, by a program of their own: the training
            has the same bits with and without them
  by_pmap   splits batches by `jax.pmap` instead: see `training.pmap`

  The program donates the state: its leaves must not share buffers.
  """
  abstract = abstract_state(trainer, len(seeds), mesh)
  where = jax.tree.map(lambda x: x.sharding, abstract)
  start = time.perf_counter()
  lowered, together = lower_steps(trainer, len(seeds), arrays, mesh, count, by_pmap)
  run = lowered.compile()
  look = _compile_look(trainer, metrics, arrays, mesh, together, count)
  seconds = time.perf_counter() - start
  seed_S = jnp.array(seeds, jnp.uint32)
  init = jax.jit(
    jax.vmap(trainer.init), out_shardings=where, compiler_options=_once(mesh)
  )
  waiting = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(abstract))
  waiting = waiting * (len(seeds) - together) // len(seeds)
  peak_bytes = _peak_bytes(run)
  peak_bytes += waiting if peak_bytes else 0
  windows = stream.stream_of(trainer, arrays, seeds, mesh, count, together)
  return Program(
    run=pmap.placed(run, mesh) if by_pmap else run,
    init=lambda: init(seed_S),
    abstract=abstract,
    seconds=seconds,
    peak_bytes=peak_bytes,
    together=together,
    stream=windows,
    look=look,
  )


def lower_steps(
  trainer: Trainer,
  seeds: int,
  arrays: Any,
  mesh: Mesh,
  count: int,
  by_pmap: bool = False,
) -> tuple[Lowered, int]:
  """Returns the program of one dispatch, to be compiled, and the seeds that it trains.

  The devices of the mesh may be those of another machine, and the arrays shapes with
  shardings: a program is then compiled ahead of time.

  trainer, arrays, mesh, count, by_pmap   as in `compile_steps`
  seeds                                   number of seeds of the run
  """
  with jax.set_mesh(mesh):
    together = seed_parts.together(seeds)
    state = abstract_state(trainer, together, mesh)
    windows = stream.abstract_windows(trainer, arrays, mesh, together, count)
  if by_pmap:  # without the mesh: its axes are not those of pmap
    return pmap.lower_steps(trainer, arrays, state, windows, mesh, count), together
  with jax.set_mesh(mesh):  # for attention that sends keys from device to device
    trainer = _on_mesh(trainer, mesh)
    where = jax.tree.map(lambda x: x.sharding, state)

    def one_seed(arrays, state, windows):
      return trainer.steps(arrays, state, count, windows)

    steps = jax.jit(
      sharding.map_seeds(one_seed, (None, 0, 0)),
      donate_argnums=1,
      out_shardings=(where, where.step),
    )
    return steps.lower(arrays, state, windows), together


def _on_mesh(trainer: Trainer, mesh: Mesh) -> Trainer:
  """Returns the trainer that splits its batches over a mesh."""
  return dataclasses.replace(
    trainer,
    constrain=functools.partial(sharding.split_batch, mesh),
    max_logits=mesh.size // mesh.shape[SEED] * losses.default_max_logits(),
  )


def _compile_look(
  trainer: Trainer,
  metrics: Sequence[StepMetric],
  arrays: Any,
  mesh: Mesh,
  together: int,
  count: int,
) -> Any:
  """Returns the compiled step metrics of `together` seeds, None without any.

  Arguments are those of `compile_steps`.
  """
  if not metrics:
    return None
  with jax.set_mesh(mesh):
    state = abstract_state(trainer, together, mesh)
    windows = stream.abstract_windows(trainer, arrays, mesh, together, count)
    look = functools.partial(step_look.look, _on_mesh(trainer, mesh), metrics)
    program = jax.jit(
      sharding.map_seeds(look, (None, 0, 0)), out_shardings=state.step.sharding
    )
    return program.lower(arrays, state, windows).compile()


def abstract_state(trainer: Trainer, seeds: int, mesh: Mesh) -> State:
  """Returns shapes and shardings of the state of a number of seeds."""
  shapes = trainer.shapes_of(seeds)
  return jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
    shapes,
    sharding.split_stacked(mesh, shapes),
  )


def _peak_bytes(run: Any) -> int:
  """Returns the memory of a compiled program; 0 where the backend has no analysis."""
  memory = run.memory_analysis()
  if memory is None:
    return 0
  return memory.argument_size_in_bytes + memory.temp_size_in_bytes


def _once(mesh: Mesh) -> dict[str, int] | None:
  """Returns options for a program that runs once: LLVM would optimize for seconds."""
  with jax.set_mesh(mesh):
    on_cpu = platform() == "cpu"
  return {"xla_backend_optimization_level": 0} if on_cpu else None


def fit(
  program: Program,
  arrays: Any,
  budget: Budget,
  keeper: Keeper,
  report: Callable[[DispatchMetrics], None],
  resumed: Callable[[int], None],
  stop: Any,
) -> FitResult:
  """Trains to the last step, from the newest checkpoint if there is one.

  program   the compiled dispatch, from `compile_steps`
  arrays    the task's data, on the devices
  budget    steps in all, per dispatch and between checkpoints
  keeper    the checkpoints, restored and saved
  report    called with the metrics of every dispatch, some dispatches late
  resumed   called once, with the step of the checkpoint; 0 without one
  stop      becomes true when training should save and return
  """
  restored = keeper.restore(program.abstract)
  state, meta = restored or (program.init(), {"step": 0, "diverged": {}})
  step = meta["step"]
  diverged, causes = divergences(meta)
  check_buffers(state)
  resumed(step)
  seeds = program.abstract.step.shape[0]
  pending = _Pending(diverged, causes, report)
  parts = seed_parts.split(state, program.together)
  del restored, state  # a dispatch donates it
  with program.windows_from(step) as windows:
    while step < budget.steps and not stop and len(diverged) < seeds:
      parts, metrics = program.dispatch(arrays, parts, next(windows))
      step += budget.per_dispatch
      pending.add(step, metrics)
      pending.settle(leave=IN_FLIGHT - 1)
      keeper.poll()
      if step % budget.save == 0 or step == budget.steps:
        pending.settle(leave=0)
        keeper.save(step, seed_parts.join(parts), _note(diverged, causes))
  pending.settle(leave=0)
  state = seed_parts.join(parts)
  finished = step >= budget.steps or len(diverged) == seeds
  if not finished:
    keeper.save(step, state, _note(diverged, causes))
  return FitResult(state, step, diverged, finished, causes)


def _note(diverged: dict[int, int], causes: dict[int, str]) -> dict[str, Any]:
  """Returns what a checkpoint says of seeds that diverged."""
  return {"diverged": diverged} | ({"causes": causes} if causes else {})


def divergences(meta: Mapping[str, Any]) -> tuple[dict[int, int], dict[int, str]]:
  """Returns `diverged` and `causes` of a FitResult, from the note of a checkpoint."""
  diverged = {int(place): first for place, first in meta["diverged"].items()}
  causes = {int(place): cause for place, cause in meta.get("causes", {}).items()}
  return diverged, causes


class _Pending:
  """Metrics of dispatches under way, reported in their order.

  diverged   first step with a loss that is not finite, by place of the seed; filled
  causes     auxiliary loss that was not finite first, by place; filled
  report     called with the metrics of every dispatch
  """

  def __init__(
    self,
    diverged: dict[int, int],
    causes: dict[int, str],
    report: Callable[[DispatchMetrics], None],
  ):
    self.diverged, self.causes, self.report = diverged, causes, report
    self.dispatches: collections.deque = collections.deque()
    self.last_report = time.perf_counter()

  def add(self, step: int, metrics: list[dict[str, jax.Array]]) -> None:
    """Adds the metrics of the dispatch that ends at a step, by parts of the seeds."""
    self.dispatches.append((step, metrics))

  def settle(self, leave: int) -> None:
    """Reports the oldest dispatches, all but the `leave` newest; waits for them."""
    while len(self.dispatches) > leave:
      last, metrics = self.dispatches.popleft()
      metrics = seed_parts.join(global_arrays.read(metrics))
      taught_SN = metrics.pop("targets") != 0
      _note_divergence(self.diverged, self.causes, last, metrics, taught_SN)
      now = time.perf_counter()
      means = {name: _mean(x_SN, taught_SN) for name, x_SN in metrics.items()}
      seconds, diverged = now - self.last_report, len(self.diverged)
      self.report(DispatchMetrics(last, means, seconds, diverged))
      self.last_report = now


def check_buffers(state: State) -> None:
  """Raises ValueError if two leaves of a state share a buffer."""
  leaf_names: dict[tuple[jax.Device, int], str] = {}
  for name, leaf in named_leaves(state).items():
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    for shard in (jax.random.key_data(leaf) if is_key else leaf).addressable_shards:
      if not shard.data.size:
        continue
      buffer = shard.device, shard.data.unsafe_buffer_pointer()
      other = leaf_names.setdefault(buffer, name)
      if other != name:
        raise ValueError(
          f"{other} and {name} of the state are one array, and a step donates each"
          " leaf: copy one of them with jnp.copy"
        )


def _mean(x_SN: np.ndarray, taught_SN: np.ndarray) -> np.ndarray:
  """Returns the mean over the steps that had a target; NaN where none had."""
  if taught_SN.all():
    return x_SN.mean(axis=1)
  sum_S = np.where(taught_SN, x_SN, 0).sum(axis=1)
  count_S = taught_SN.sum(axis=1)
  return np.where(count_S, sum_S / np.maximum(count_S, 1), np.nan).astype(x_SN.dtype)


def _note_divergence(
  diverged: dict[int, int],
  causes: dict[int, str],
  last: int,
  metrics: Mapping[str, np.ndarray],
  taught_SN: np.ndarray,
) -> None:
  """Records the first step at which a loss of each seed was not finite.

  A step without a target has no loss.
  """
  bad = {
    name: ~np.isfinite(x_SN) & taught_SN
    for name, x_SN in metrics.items()
    if name == "loss" or name.startswith(AUXILIARY)
  }
  bad_SN = functools.reduce(np.logical_or, bad.values())
  first = last - bad_SN.shape[1] + 1
  for seed in map(int, np.flatnonzero(bad_SN.any(axis=1))):
    if seed in diverged:
      continue
    at = int(bad_SN[seed].argmax())
    diverged[seed] = first + at
    names = [name for name, x_SN in bad.items() if x_SN[seed, at]]
    if "loss" not in names:  # else the parameters were lost before
      causes[seed] = names[0]
