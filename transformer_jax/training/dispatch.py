"""One dispatch of training: some steps of all seeds, compiled."""

import contextlib
import dataclasses
import functools
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.stages import Lowered

from transformer_jax import compiler_options
from transformer_jax.mesh_shape import SEED
from transformer_jax.training import loss as losses
from transformer_jax.training import pmap, seed_parts, sharding, step_look, stream
from transformer_jax.training.step import State, Trainer
from transformer_jax.training.step_metrics import StepMetric
from transformer_jax.training.stream import TextStream, Windows


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
  with jax.set_mesh(mesh):
    together = seed_parts.together(len(seeds))
  lower = functools.partial(lower_steps, trainer, len(seeds), arrays, mesh, count)
  run = compiler_options.compiled(
    lambda options: lower(by_pmap, options)[0], compiler_options.of_training(mesh)
  )
  look = _compile_look(trainer, metrics, arrays, mesh, together, count)
  seconds = time.perf_counter() - start
  seed_S = jnp.array(seeds, jnp.uint32)
  with jax.set_mesh(mesh):
    once = compiler_options.of_few_calls()
  init = jax.jit(jax.vmap(trainer.init), out_shardings=where, compiler_options=once)
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
  options: compiler_options.CompilerOptions = None,
) -> tuple[Lowered, int]:
  """Returns the program of one dispatch, to be compiled, and the seeds that it trains.

  The devices of the mesh may be those of another machine, and the arrays shapes with
  shardings: a program is then compiled ahead of time.

  trainer, arrays, mesh, count, by_pmap   as in `compile_steps`
  seeds                                   number of seeds of the run
  options                                 of the compiler; not those of pmap's programs
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
      compiler_options=options,
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
