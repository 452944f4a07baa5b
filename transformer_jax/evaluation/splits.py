"""Scored splits: validation to choose by, test to report.

A task that reads data has a field `split`. The examples of other tasks are drawn, and
those of each split by a key of its own.
"""

import dataclasses
from typing import Any

import jax

from transformer_jax.evaluation.lengths import Evaluator
from transformer_jax.spec import nearest

KEYS = {"test": 0, "validation": 1}  # seeds of the draws of a task without data


def split_of(evaluator: Evaluator) -> str:
  """Returns the name of the scored split.

  >>> from transformer_jax.axes import Dims
  >>> from transformer_jax.data.base import tasks
  >>> from transformer_jax.models import Architecture, Transformer
  >>> arch = Architecture(Dims(V=8, D=8, H=2, F=8, L=8), position="rope", decoders=1)
  >>> copying = Evaluator(Transformer(arch), tasks.build("copy(symbols=4)"), 8, 4)
  >>> split_of(copying), split_of(with_split(copying, "validation"))
  ('test', 'validation')
  """
  if split := getattr(evaluator.task, "split", None):
    return split
  return {key: name for name, key in KEYS.items()}.get(evaluator.key, "other draws")


def with_split(evaluator: Evaluator, split: str) -> Evaluator:
  """Returns the evaluator of another split; raises ValueError.

  split   validation or test; "": the same
  """
  task: Any = evaluator.task  # a dataclass
  if not split or split == split_of(evaluator):
    return evaluator
  if hasattr(task, "split"):
    return dataclasses.replace(evaluator, task=dataclasses.replace(task, split=split))
  name = type(task).__name__
  if split not in KEYS:
    raise ValueError(f"{name} has no split '{split}'.{nearest(split, KEYS)}")
  if jax.tree.leaves(task.abstract()):
    raise ValueError(f"{name} has one scored split; give it a field `split`")
  return dataclasses.replace(evaluator, key=KEYS[split])
