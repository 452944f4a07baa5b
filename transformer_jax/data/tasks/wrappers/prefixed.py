"""Algorithmic tasks with bidirectional attention in the prompt. Raffel et al., 2020.

https://arxiv.org/abs/1910.10683, section 3.2.1: a language model with a prefix.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from transformer_jax.data.base import Batch, tasks
from transformer_jax.data.tasks.algorithmic.base import SEPARATOR
from transformer_jax.data.tasks.wrappers.base import Posed


@tasks.register("prefixed")
@dataclasses.dataclass(frozen=True)
class Prefixed(Posed):
  """Wrapper of a task with bidirectional attention in the prompt.

  task   an algorithmic task: copy, reverse, sort, addition, ...

  >>> import transformer_jax as tj
  >>> from transformer_jax.numpy_interpreter import evaluate
  >>> task = tj.tasks.build("prefixed(repeat(symbols=1, fixed=True))")
  >>> batch = evaluate(lambda: task.batch((), jax.random.key(0), 1, length=2))
  >>> batch.input_BL.tolist(), batch.at.horizon_BL.tolist()
  ([[1, 4, 4, 2, 4, 4]], [[3, 3, 3, 3, 4, 5]])
  """

  kind: ClassVar[str] = "prefix_decoder"

  def tokens(self, length: Any) -> Any:
    return self.task.tokens(length)

  def batch(
    self,
    arrays: Any,
    key: jax.Array,
    batch_size: int,
    length: int,
    progress: float | jax.Array = 1.0,
  ) -> Batch:
    """Returns the task's batch with bidirectional attention in prompts.

    Arguments are those of `Task.batch`.
    """
    return _see(self.task.batch(arrays, key, batch_size, length, progress))

  def score(
    self, arrays: Any, key: jax.Array, batch_size: int, length: jax.Array, bucket: int
  ) -> Batch:
    """Returns the task's batch with bidirectional attention in prompts.

    Arguments are those of `Task.score`.
    """
    return _see(self.task.score(arrays, key, batch_size, length, bucket))


def _see(batch: Batch) -> Batch:
  """Returns the batch with horizons up to at least the separator of each row."""
  at = jax.tree.map(lambda x: jnp.broadcast_to(x, batch.input_BL.shape), batch.at)
  last_B1 = jnp.argmax(batch.input_BL == SEPARATOR, axis=1)[:, None]
  prompt_B1 = jnp.take_along_axis(at.order_BL, last_B1, axis=1) + 1
  return dataclasses.replace(batch, at=at.prefix(prompt_B1))
