"""Evaluation of generated texts by their task: how many of them does it accept?"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax import global_arrays
from transformer_jax.data.tasks.algorithmic.base import PAD
from transformer_jax.evaluation.decode import Sampling, greedy, sample
from transformer_jax.evaluation.task_evaluation import TaskEvaluation
from transformer_jax.positions import coords

SAMPLES = 3  # texts shown in the report


@dataclasses.dataclass(frozen=True, eq=False)
class TextWriter:
  """A trained decoder that continues the prompts of a task.

  length   training length
  place    puts rows on the devices

  >>> TextWriter(model=None, params=None, length=20).length
  20
  """

  model: Any
  params: Any
  length: int
  place: Callable[[np.ndarray], jax.Array] = jnp.asarray

  def write(self, task: Any, prompt_BL: np.ndarray, batch_size: int) -> np.ndarray:
    """Returns the continuations, token_BN, -1 where logits are not numbers.

    prompt_BL    tokens, padded
    batch_size   texts at once; the last batch is filled up, for one program
    """
    steps, found = task.answer_size(self.length), []
    for first in range(0, len(prompt_BL), batch_size):
      row_B = np.minimum(np.arange(first, first + batch_size), len(prompt_BL) - 1)
      key = jax.random.fold_in(jax.random.key(0), first)
      how = self.model, steps, task.end, task.temperature
      written = _write(*how, self.params, self.place(prompt_BL[row_B]), key)
      found.append(global_arrays.read(written))
    return np.concatenate(found)[: len(prompt_BL)]


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _write(
  model: Any,
  steps: int,
  end: int,
  temperature: float,
  params: Any,
  prompt_BL: jax.Array,
  key: jax.Array,
) -> jax.Array:
  """Returns token_BN: the most likely ones, or drawn ones above a temperature of 0."""
  at = coords.padded(prompt_BL != PAD)
  if not temperature:
    return greedy(model, params, prompt_BL, steps, at, end=end)
  how = Sampling(temperature)
  return sample(model, params, prompt_BL, steps, key, how, at, end=end)


@dataclasses.dataclass(frozen=True)
class ValidTextsEval(TaskEvaluation):
  """Share of the texts that a model writes and its task accepts, `valid`.

  The task has `prompts(length, count)`, which returns prompts and whole texts, padded
  with zeros, `answer_size(length)`, `end`, `temperature` (0: the most likely tokens)
  and `accepts(tokens)`.

  most         texts to write; 0: none
  batch_size   texts at once

  >>> ValidTextsEval(most=100, batch_size=32).measures
  {'valid': 'higher'}
  """

  most: int
  batch_size: int

  kind: ClassVar[str] = "valid_texts"
  measures: ClassVar[dict[str, str]] = {"valid": "higher"}
  file: ClassVar[str] = "written.json"
  no_score: ClassVar[str] = "logits of a text are not numbers"

  def agent(self, examples, model, params, length, place):
    return TextWriter(model, params, length, place)

  def record(self, examples: Any, agents: Sequence[TextWriter]) -> dict[str, Any]:
    prompt_BL, text_BL = _read(examples, agents[0].length, self.most)
    prompts, wholes = [tokens_of(x) for x in prompt_BL], [tokens_of(x) for x in text_BL]
    written = [x.write(examples, prompt_BL, self.batch_size) for x in agents]
    texts = [
      [
        join(prompt, row_N, examples.end)
        for prompt, row_N in zip(prompts, x, strict=True)
      ]
      for x in written
    ]
    accepted = [
      None if (rows < 0).any() else [examples.accepts(text) for text in each]
      for rows, each in zip(written, texts, strict=True)
    ]
    how = "the most likely tokens"
    if examples.temperature:
      how = f"tokens drawn at a temperature of {examples.temperature:g}"
    digest = hashlib.sha256(text_BL.tobytes() + prompt_BL.tobytes())
    shown = range(min(SAMPLES, self.most))
    return {
      "texts": self.most,
      "fingerprint": digest.hexdigest()[:16],
      "signatures": [f"accepted by the task {type(examples).__name__}"],
      "search": how,
      "floors": {},
      "scores": [{"valid": None if x is None else float(np.mean(x))} for x in accepted],
      "margins": [[None] for _ in agents],
      "below": [False for _ in agents],
      "samples": [
        [shown_as(x) for x in (prompts[n], wholes[n], texts[0][n])] for n in shown
      ],
      "all": [texts, accepted],
    }

  def lines(self, examples, made, seeds):
    return [
      {"seed": seed, "tokens": text, "valid": None if valid is None else valid[n]}
      for seed, texts, valid in zip(seeds, *made, strict=True)
      for n, text in enumerate(texts)
    ]


def _read(task: Any, length: int, count: int) -> tuple[np.ndarray, np.ndarray]:
  """Returns the prompts and whole texts of a task."""
  draw = jax.jit(task.prompts, static_argnums=(0, 1))
  prompt_BL, text_BL = global_arrays.read(draw(length, count))
  return np.asarray(prompt_BL), np.asarray(text_BL)


def tokens_of(row_L: np.ndarray) -> list[int]:
  return row_L[row_L != PAD].tolist()


def join(prompt: list[int], written_N: np.ndarray, end: int) -> list[int]:
  """Returns a prompt and what follows, up to the first end token, which it includes."""
  written = written_N.tolist()
  last = written.index(end) + 1 if end in written else len(written)
  return prompt + written[:last]


def shown_as(tokens: list[int]) -> str:
  return " ".join(map(str, tokens))
