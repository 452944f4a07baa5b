"""Where the training text is: on the devices, or on the host and read ahead."""

from typing import Any

import jax.numpy as jnp

from transformer_jax.data import stores, windows
from transformer_jax.data.base import Task
from transformer_jax.data.files import DataError
from transformer_jax.data.stores import InMemory
from transformer_jax.data.windows import MOST, HostText, Mixture
from transformer_jax.training.step import Trainer

AUTO, RESIDENT, STREAMED = CHOICES = ("auto", "resident", "streamed")
FITTING = 1 << 28  # bytes of a text that are put on each device: 256 MiB


def placed(task: Task, arrays: Any, choice: str) -> tuple[Any, dict[str, str]]:
  """Returns a task's arrays with its text where it shall be, and the fact to record.

  choice   auto: on the devices where it has at most FITTING bytes; resident; streamed

  The numbers of a run are the same for each. Raises DataError for a text that is to be
  resident and is larger than one array counts, and for a task whose data cannot be
  streamed.
  """
  name = task.streamed
  if name is None:
    if choice == STREAMED:
      raise DataError(
        f"train.text=streamed: the data of {type(task).__name__} are arrays on the"
        " devices; write --config.train.text=auto"
      )
    return arrays, {}
  text = arrays[name] if isinstance(arrays[name], HostText) else _on_host(arrays[name])
  size = sum(text.sizes) * text.store.dtype.itemsize
  streamed = choice == STREAMED or choice == AUTO and size > FITTING
  kept = text if streamed else _resident(text)
  return arrays | {name: kept}, {"text": STREAMED if streamed else RESIDENT}


def without_data(task: Task, choice: str) -> Any:
  """Returns the shapes of a task's arrays, with its text where it would be.

  choice   as in `placed`; auto: streamed, since no data is read to know its size
  """
  if choice == AUTO and task.streamed is not None:
    choice = STREAMED
  return placed(task, task.abstract(), choice)[0]


def epochs(trainer: Trainer, arrays: Any) -> dict[str, float]:
  """Returns how often training reads its text, {} for a task without one.

  A mixture's parts are read by their weights: of it this is the mean over its tokens.
  """
  if trainer.task.streamed is None:
    return {}
  tokens = sum(windows.sizes(arrays[trainer.task.streamed]))
  rows = trainer.planned * trainer.batch_size
  if getattr(trainer.task, "order", "random") != "random" and rows > MOST:
    raise DataError(
      f"order='epochs' counts {MOST:,} rows at most, and train.steps x train.batch_size"
      f" are {rows:,}; write order='random'"
    )
  read = trainer.planned * trainer.batch_size * trainer.length
  return {"epochs": round(read / tokens, 4)}


def _on_host(token_N: Any) -> HostText:
  return HostText(InMemory(token_N))


def _resident(text: HostText) -> Any:
  """Returns a text as an array, a mixture as a Mixture."""
  if sum(text.sizes) > MOST:
    raise DataError(
      f"train.text=resident: {sum(text.sizes):,} tokens are more than one array counts;"
      " write --config.train.text=auto"
    )
  token_N = stores.whole(text.store)
  if not text.weights:
    return token_N
  return Mixture(jnp.asarray(token_N), text.sizes, text.weights)
