"""Mean of a run's last checkpoints. Vaswani et al., 2017, section 6.1.

https://arxiv.org/abs/1706.03762
"""

from typing import Any

import jax

from transformer_jax.training.checkpoint import CheckpointError, Keeper
from transformer_jax.training.step import State


def average(keeper: Keeper, abstract: State, last: int) -> Any:
  """Returns the mean of the evaluated parameters of the `last` newest checkpoints.

  abstract   a state as shapes, as `Keeper.restore` takes it

  One checkpoint besides the mean is in memory at a time. Raises CheckpointError unless
  that many checkpoints are on disk.
  """
  keeper.wait()
  steps = keeper.steps()[::-1][:last]
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
