"""Labels of single tokens that a task makes of its inputs: what a probe looks for."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import jax

if TYPE_CHECKING:
  from transformer_jax.data.base import Batch


@dataclasses.dataclass(frozen=True, eq=False)
class TokenLabel:
  """A label of tokens, such as the depth of brackets.

  classes   number of classes, which are 0, 1, ...
  compute   from a batch to label_BL, int32, and weight_BL, 1 where there is a label;
            runs under `jax.jit`
  ordered   whether classes are numbers, such as depths: errors then have a size

  >>> import transformer_jax as tj
  >>> label = tj.tasks.build("cycle_navigation").probe_labels()["state"]
  >>> label.classes, label.ordered
  (5, False)
  """

  classes: int
  compute: Callable[["Batch"], tuple[jax.Array, jax.Array]]
  ordered: bool = False
