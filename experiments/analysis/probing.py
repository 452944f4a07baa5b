"""Probes of the hidden states of finished runs, beside those of untrained models."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import inference
from experiments.reporting.probe_result import ProbeResult, ProbeSettings
from experiments.runner import train
from experiments.runner.build import Experiment
from experiments.setup.validate import ConfigError
from transformer_jax.analysis.probes import probes, token_properties
from transformer_jax.analysis.probes.probe_training import ProbeBudget
from transformer_jax.analysis.probes.study import (
  ProbeStudy,
  SeedProbes,
  majority,
  median_error,
)
from transformer_jax.data.base import Batch, Task, tasks
from transformer_jax.data.windows import HostText
from transformer_jax.evaluation import activations, splits
from transformer_jax.evaluation.lengths import Evaluator
from transformer_jax.models import Transformer
from transformer_jax.spec import nearest
from transformer_jax.training import sharding

TRAINING = "train"  # the texts that the model was trained on
SCORED = "test"  # the texts that probes are scored on


def probe(
  experiment: Experiment,
  params: Mapping[int, Any],
  settings: ProbeSettings,
  folder: Path | None = None,
) -> ProbeResult:
  """Returns the scores of probes of all seeds of a run; raises ConfigError.

  experiment   of the run
  params       {seed: parameters}
  settings     of the probes
  folder       of the run, whose tokenizer another task must have; None: unchecked
  """
  try:
    with jax.set_mesh(sharding.make_mesh()):
      return _probe(experiment, params, settings, folder)
  except ValueError as error:  # of data, specs and labels: sentences
    raise ConfigError(str(error)) from error


def _probe(experiment, params, settings, folder) -> ProbeResult:
  if settings.texts == SCORED:
    raise ConfigError(
      f"--texts={SCORED}: probes are scored on these texts, so they are trained on"
      f" others; write --texts=validation, or --texts={TRAINING}"
    )
  evaluator, length = _evaluator(experiment, settings), _length(experiment, settings)
  model, task = experiment.trainer.model, evaluator.task
  study = _study(settings, task)
  if reason := evaluator.undefined(length):
    raise ConfigError(f"--length={length}: {reason}; write a shorter one")
  batch, test = (
    _batch(evaluator, split, length, settings.examples, folder)
    for split in (settings.texts, SCORED)
  )
  seeds = tuple(params)
  stack, layers = _layers(model, params[seeds[0]], test, settings)
  source = stack == "encoder" and test.source_BL is not None
  study = dataclasses.replace(study, source=source)
  texts = study.texts(task, batch, test, jax.random.key(0))
  found = [study.run(model, params[seed], texts, layers) for seed in seeds]
  scores = _scores(found)
  guesses = {"majority": majority(texts)}
  if texts.prediction.ordered:
    guesses["median error"] = median_error(texts)
  for name, guess_E in guesses.items():
    scores[name] = np.broadcast_to(guess_E, scores["probe"].shape)
  if settings.untrained:
    bare = dataclasses.replace(study, control=0, mdl=False)
    first = jax.jit(lambda seed: experiment.trainer.init(seed).params)
    plain = [bare.run(model, first(jnp.uint32(s)), texts, layers) for s in seeds]
    scores["untrained"] = np.stack([each.score_TPE[0] for each in plain])
  count = len(texts.train.label_I)
  return ProbeResult(
    settings,
    texts.prediction.measure,
    texts.prediction.count,
    layers,
    seeds,
    {"train": count, "test": len(texts.test.label_I)},
    scores,
    _bits(found, count),
    texts.prediction.bits,
    texts.shared,
  )


def _study(settings: ProbeSettings, task: Task) -> ProbeStudy:
  return ProbeStudy(
    token_properties.build(settings.label, task),
    probes.build(settings.probe),
    ProbeBudget(steps=settings.steps),
    samples=settings.samples,
    control=settings.control,
    mdl=settings.mdl,
  )


def _scores(found: Sequence[SeedProbes]) -> dict[str, Any]:
  """Returns {name: scores [S, P, E]} of the probes of each seed."""
  score_STPE = np.stack([each.score_TPE for each in found])
  names = ("probe", "control")[: score_STPE.shape[1]]
  scores = {name: score_STPE[:, t] for t, name in enumerate(names)}
  if errors := [each.error_PE for each in found if each.error_PE is not None]:
    scores["error"] = np.stack(errors)
  return scores


def _bits(found: Sequence[SeedProbes], count: int) -> dict[str, np.ndarray]:
  """Returns {name: bits of a sample [S, P]}; {}: no code lengths were computed."""
  codes = [each.code for each in found if each.code is not None]
  if not codes:
    return {}
  bits_SPT = np.stack([code.bits_PT for code in codes]) / count
  names = ("probe", "control")[: bits_SPT.shape[2]]
  return {name: bits_SPT[:, :, t] for t, name in enumerate(names)}


def _evaluator(experiment: Experiment, settings: ProbeSettings) -> Evaluator:
  """Returns the evaluator of the run, or that of another task."""
  evaluator = experiment.evaluator
  if not settings.task:
    return evaluator
  task = tasks.build(settings.task)
  ours, theirs = experiment.task.vocabulary, task.vocabulary
  if ours != theirs:
    raise ConfigError(
      f"--task: its vocabulary has {theirs} tokens and the run was trained with {ours};"
      " write tokenizer=\"kept('FOLDER OF THE RUN')\" in the task"
    )
  return dataclasses.replace(evaluator, task=task)


def _length(experiment: Experiment, settings: ProbeSettings) -> int:
  """Returns the length of the texts; raises ConfigError beyond that of training."""
  trained, length = experiment.trainer.length, settings.length
  if length < 0:
    raise ConfigError(f"--length={length}: write a length of the task, or 0")
  if length > trained and not settings.extrapolate:
    raise ConfigError(
      f"--length={length}: the run was trained with {trained}, and states of longer"
      " texts are extrapolated; add --extrapolate to probe them, or write"
      f" --length={trained}"
    )
  return length or trained


def _batch(
  evaluator: Evaluator, split: str, length: int, examples: int, folder: Path | None
) -> Batch:
  """Returns texts of a split."""
  training = split == TRAINING
  evaluator = splits.with_split(evaluator, SCORED if training else split)
  task, key = evaluator.task, jax.random.key(evaluator.key)
  data = train.load(task)
  _check_tokenizer(folder, data.fitted)
  if not training:
    return task.score(data[0], key, examples, jnp.int32(length), length)
  if any(isinstance(x, HostText) for x in dict(data[0] or {}).values()):
    raise ConfigError("--texts=train: the text is streamed; write --texts=validation")
  return task.batch(data[0], jax.random.fold_in(key, 1), examples, length)


def _check_tokenizer(folder: Path | None, fitted: Any) -> None:
  """Raises ConfigError where a task's tokens mean something else than the run's."""
  theirs = getattr(fitted, "tokenizer", fitted)
  if folder is None or not hasattr(theirs, "encode"):
    return
  ours = inference.tokenizer_of(folder)
  if ours is not None and ours != theirs:
    raise ConfigError(
      "--task: its tokenizer is not that of the run; write"
      f" tokenizer=\"kept('{folder}')\" in the task"
    )


def _layers(
  model: Transformer, params: Any, batch: Batch, settings: ProbeSettings
) -> tuple[str, tuple[str, ...]]:
  """Returns the stack and the paths of its states; raises ConfigError."""
  look = functools.partial(activations.hidden_states, model)
  paths = jax.eval_shape(look, params, *batch.reads)
  stacks = sorted({path.partition("/")[0] for path in paths})
  stack = settings.stack or stacks[0]
  if stack not in stacks:
    raise ConfigError(f"--stack={stack}: this model has {' and '.join(stacks)}")
  names = [path.partition("/")[2] for path in paths if path.startswith(f"{stack}/")]
  chosen = [_layer(name, names) for name in settings.layers] or names
  in_order = [name for name in names if name in chosen]
  return stack, tuple(f"{stack}/{name}" for name in in_order)


def _layer(wanted: str, names: Sequence[str]) -> str:
  """Returns the name of a layer from its name or number; raises ConfigError."""
  if wanted.isdecimal() and int(wanted) < len(names):
    return names[int(wanted)]
  if wanted not in names:
    raise ConfigError(
      f"--layers={wanted}: there is no such layer.{nearest(wanted, names)} Write some"
      f" of {', '.join(names)}, or 0 to {len(names) - 1}"
    )
  return wanted
