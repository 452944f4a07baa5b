"""Training loop: dispatches, checkpoints, resuming, stopping."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from transformer_jax.training import seed_parts
from transformer_jax.training.checkpoint import Keeper
from transformer_jax.training.checkpoint_note import named_leaves
from transformer_jax.training.dispatch import Program
from transformer_jax.training.dispatch_metrics import (
  DispatchMetrics,
  PendingMetrics,
  divergences,
)
from transformer_jax.training.step import State

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

  program   the compiled dispatch, from `dispatch.compile_steps`
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
  pending = PendingMetrics(diverged, causes, report)
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
