"""Norms that read a whole batch in training: refusals, and their running statistics.

Running statistics are parameters, so that checkpoints, averages, seeds and export hold
them. A step replaces them after the optimizer's update.
"""

from collections.abc import Mapping
from typing import Any

from transformer_jax.data.base import Task


def refusal(task: Task, batch_size: int, accumulate: int) -> str | None:
  """Returns why the statistics of a batch are undefined in this training, or None.

  task         whose batches are read
  batch_size   examples in a batch
  accumulate   micro-batches that a batch is computed in

  >>> from transformer_jax.data.base import tasks
  >>> refusal(tasks.build("blanks(copy)"), batch_size=8, accumulate=2)
  'batchnorm reads the whole batch, and accumulate=2 computes parts of it: write 1'
  """
  packed = getattr(task, "packed", False)
  if packed is True or packed > 1:
    return (
      "batchnorm would mix the texts that a row is packed with, which must not read"
      " each other: leave out packed"
    )
  if accumulate > 1:
    return (
      f"batchnorm reads the whole batch, and accumulate={accumulate} computes parts of"
      " it: write 1"
    )
  if batch_size == 1:
    return "batchnorm reads the statistics of a batch: write a batch_size of 2 or more"
  return None


def replaced(params: Any, running: Mapping[str, Any]) -> Any:
  """Returns parameters with running statistics in the place of those of their names.

  params    nested by module
  running   running statistics, nested likewise; empty: none

  >>> norm = {"gain_D": 1, "running_mean_D": 2}
  >>> replaced({"norm": norm, "head": 5}, {"norm": {"running_mean_D": 7}})
  {'norm': {'gain_D': 1, 'running_mean_D': 7}, 'head': 5}
  """

  def one(name: str, value: Any) -> Any:
    if name not in running:
      return value
    new = running[name]
    return replaced(value, new) if isinstance(new, Mapping) else new

  if not running:
    return params
  return {name: one(name, value) for name, value in params.items()}
