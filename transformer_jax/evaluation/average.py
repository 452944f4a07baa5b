"""Mean of a run's last checkpoints. Vaswani et al., 2017, section 6.1.

https://arxiv.org/abs/1706.03762
"""

from typing import Any

import jax

from transformer_jax.training.checkpoint import CheckpointError, Keeper
from transformer_jax.training.step import State


def average(keeper: Keeper, abstract: State, last: int, step: int | None = None) -> Any:
  """Returns the mean of the evaluated parameters of the `last` newest checkpoints.

  step       the newest of them; None: the newest on disk
  abstract   a state as shapes, as `Keeper.restore` takes it

  One checkpoint besides the mean is in memory at a time. Raises CheckpointError unless
  that many checkpoints, and that of the step, are on disk.
  """
  keeper.wait()
  there = keeper.steps()
  if step is not None and step not in there:
    raise CheckpointError(
      f"no checkpoint of step {step} is there; there are {', '.join(map(str, there))}"
    )
  steps = [n for n in there if step is None or n <= step][::-1][:last]
  if last < 1 or len(steps) < last:
    raise CheckpointError(
      f"{len(steps)} checkpoints are there and {last} shall be averaged; average 1 or"
      " more of those, or train with a keeper that keeps as many"
    )
  total = keeper.read(steps[0], abstract)[0].eval_params
  for step in steps[1:]:
    state, _ = keeper.read(step, abstract)
    total = jax.tree.map(lambda a, b: a + b, total, state.eval_params)
  return jax.tree.map(lambda x: (x / last).astype(x.dtype), total)
