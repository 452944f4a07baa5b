"""Base class of wrappers that re-pose an algorithmic task."""

import dataclasses

from transformer_jax.data.base import Task, tasks
from transformer_jax.data.tasks.algorithmic.base import Strings
from transformer_jax.spec import SpecError


@dataclasses.dataclass(frozen=True)
class Posed(Task):
  """Poses the problems of another task; with the same key, the same problems.

  task   one of strings: copy, reverse, sort, addition, ...
  """

  task: Strings

  def __post_init__(self):
    task: Task = self.task  # a config may name any task
    if not isinstance(task, Strings):
      name, inner = tasks.name_of(self), tasks.name_of(task)
      raise SpecError(
        f"{name}: {inner} has no prompt and answer to tell apart; write {name}(copy) or"
        " another task of strings"
      )

  @property
  def vocabulary(self) -> int:
    return self.task.vocabulary

  @property
  def measures(self) -> tuple[str, ...]:
    return self.task.measures
