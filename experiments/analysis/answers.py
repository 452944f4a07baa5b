"""Outputs of a trained run for prompts, by the kind of its task."""

import functools
import itertools
from collections.abc import Sequence
from typing import Any

from experiments import inference
from experiments.generate import Bytes, Generator
from experiments.setup.validate import ConfigError
from experiments.translate import as_translator
from transformer_jax.data.base import Task
from transformer_jax.data.tasks.algorithmic.base import (
  END,
  FIRST,
  SEPARATOR,
  START,
  Strings,
)
from transformer_jax.data.tasks.language.text import Text
from transformer_jax.data.tasks.language.translation import Translation
from transformer_jax.evaluation.beam import Beam
from transformer_jax.evaluation.decode import Sampling


@functools.singledispatch  # by the kind of task
def generate(task: Task, trained: inference.Trained, prompts: Sequence[Any]) -> list:
  """Returns an output for each prompt.

  task      that of the run
  trained   one seed of the run
  prompts   inputs of the task

  Options, by the task: a text is continued by `steps` tokens, greedily or by `how`, a
  Sampling with the seed `key`; an algorithmic task likewise, by as many symbols as the
  answer has; a translation takes `how`, a Beam. Raises ConfigError for other tasks.
  """
  raise ConfigError(
    f"task={trained.config.task} generates nothing: read the logits of"
    " run.model.apply, or use python -m experiments.label"
  )


@generate.register
def _(
  task: Text,
  trained: inference.Trained,
  prompts: Sequence[str],
  steps: int = 100,
  how: Sampling | None = None,
  key: int = 0,
) -> list[str]:
  return Generator(trained, trained.tokenizer or Bytes())(prompts, steps, how, key)


@generate.register
def _(
  task: Strings,
  trained: inference.Trained,
  prompts: Sequence[Sequence[int]],
  steps: int | None = None,
  how: Sampling | None = None,
  key: int = 0,
) -> list[list[int]]:
  if steps is None:
    steps = max(_answer_size(task, len(prompt)) for prompt in prompts)
  return Generator(trained, Symbols())(prompts, steps, how, key)


@generate.register
def _(
  task: Translation,
  trained: inference.Trained,
  prompts: Sequence[str],
  how: Beam | None = None,
) -> list[str | None]:
  translator = as_translator(trained)
  return translator(list(prompts), how or Beam(), inference.warn)


class Symbols:
  """Tokenizer of algorithmic tasks: symbols to the tokens of a prompt and back.

  A token that is no symbol, as padding, is a negative number in an answer.

  >>> Symbols().encode([0, 3]), Symbols().decode([4, 7])
  ([1, 4, 7, 2], [0, 3])
  """

  end = END

  def encode(self, symbols: Sequence[int]) -> list[int]:
    return [START, *(FIRST + symbol for symbol in symbols), SEPARATOR]

  def decode(self, tokens: Sequence[int]) -> list[int]:
    return [token - FIRST for token in tokens]


def _answer_size(task: Strings, prompt: int) -> int:
  """Returns the symbols of the answer to a prompt of this size."""
  sizes = map(task.sizes, itertools.count(1))
  return next(answer for size, answer in sizes if size >= prompt)
