"""Norms that read a whole batch in training: what has no statistics is refused."""

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
