"""Base class of wrappers that re-pose an algorithmic task."""

import dataclasses

from transformer_jax.data.base import Task, tasks
from transformer_jax.data.tasks.algorithmic.base import Strings
from transformer_jax.spec import SpecError


@dataclasses.dataclass(frozen=True)
class Posed(Task):
  """Base class of wrappers; with the same key, the problems are the task's.

  task   an algorithmic task: copy, reverse, sort, addition, ...

  >>> task = tasks.build("pairs(copy(symbols=3))")
  >>> task.task, task.vocabulary
  (Copy(symbols=3, scored=None, fixed=False, curriculum=0.0, times=1), 7)
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

  def chance(self, measure: str, length: int) -> float | None:
    return self.task.chance(measure, length)

  @property
  def measures(self) -> tuple[str, ...]:
    return self.task.measures

  @property
  def length_name(self) -> str:
    return self.task.length_name
