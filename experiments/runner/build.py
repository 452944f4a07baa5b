"""Objects of an experiment, made from the strings of its config."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import jax
from ml_collections import ConfigDict

import transformer_jax.data  # noqa: F401, fills the registry of tasks
from experiments.configs import base
from experiments.setup.model_kinds import KINDS
from experiments.setup.validate import SPLIT, ConfigError
from transformer_jax import hosts
from transformer_jax.analysis import head_measure  # noqa: F401, is a measure
from transformer_jax.attention import attentions
from transformer_jax.axes import Dims
from transformer_jax.data import task_probe
from transformer_jax.data.base import Task, tasks
from transformer_jax.data.tasks.algorithmic.base import Strings
from transformer_jax.evaluation import task_evaluations
from transformer_jax.evaluation.beam import Beam
from transformer_jax.evaluation.generation_eval import GenerationEval
from transformer_jax.evaluation.lengths import Evaluator
from transformer_jax.evaluation.measures import Measure, measures, name_of
from transformer_jax.evaluation.rollout_eval import RolloutEval
from transformer_jax.evaluation.splits import with_split
from transformer_jax.evaluation.summary_eval import SummaryEval
from transformer_jax.evaluation.task_evaluation import TaskEvaluation
from transformer_jax.evaluation.valid_texts import ValidTextsEval
from transformer_jax.mesh_shape import MeshShape
from transformer_jax.models import Architecture, families
from transformer_jax.models.compatibility import refusal
from transformer_jax.spec import SpecError
from transformer_jax.training import batch_statistics, optimizers, pmap
from transformer_jax.training.loop import Budget
from transformer_jax.training.objectives import output_size
from transformer_jax.training.step import Trainer
from transformer_jax.training.step_metrics import StepMetric, step_metrics


@dataclasses.dataclass(frozen=True)
class Experiment:
  """The objects of a config.

  lengths   scored lengths of the task
  generation  scores what a model makes, where the task has it make something
  keep      newest checkpoints that stay on disk
  metrics   of training steps, beside loss and accuracy
  pmap      whether batches are split by `jax.pmap`
  text      where the training text is: see training_text.py
  """

  trainer: Trainer
  evaluator: Evaluator
  task: Task
  budget: Budget
  seeds: tuple[int, ...]
  lengths: tuple[int, ...]
  generation: TaskEvaluation
  keep: int
  text: str = "auto"
  metrics: tuple[StepMetric, ...] = ()
  pmap: bool = False


def build(config: ConfigDict) -> Experiment:
  """Returns the objects of a validated config; raises ConfigError."""
  train, evaluate = config.train, config.evaluate
  task = tasks.build(config.task)
  task_probe.check(task)
  family = families.build(config.model.family)
  check_family(config, family)
  arch = architecture(config, task)
  try:
    model = family(arch)
  except ValueError as error:
    raise ConfigError(f"model.family={config.model.family}: {error}") from error
  check_decoder(config, model.arch)
  optimizer, rate = optimizers.build(
    train.optimizer, train.schedule, train.clip, train.steps, config.model.width
  )
  evaluator = scored_by(
    config,
    Evaluator(
      model,
      task,
      evaluate.examples,
      evaluate.batch_size,
      measures=chosen_measures(evaluate.measures),
    ),
  )
  task = evaluator.task  # data are read once, with the scored split
  trainer = Trainer(
    model,
    task,
    optimizer,
    rate,
    batch_size=train.batch_size,
    length=train.length,
    label_smoothing=train.label_smoothing,
    planned=train.steps,
    ema=train.ema,
    accumulate=train.accumulate,
  )
  trainer = with_auxiliary(config, trainer)
  return Experiment(
    trainer=trainer,
    evaluator=evaluator,
    task=task,
    budget=Budget(train.steps, train.steps_per_dispatch, train.checkpoint_every),
    seeds=tuple(config.seeds),
    lengths=tuple(train.length * multiple for multiple in evaluate.lengths),
    generation=task_evaluations.chosen(task, generation_settings(evaluate)),
    keep=train.keep_checkpoints,
    text=train.text,
    metrics=chosen_metrics(train.metrics, model),
    pmap=checked_pmap(config, trainer),
  )


def generation_settings(evaluate: ConfigDict) -> dict[str, TaskEvaluation]:
  """Returns the evaluations of what models make, with the settings of a config."""
  beam = Beam(evaluate.beam, evaluate.penalty)
  texts = beam, evaluate.texts, evaluate.texts_per_step
  return {
    "texts": GenerationEval(*texts),
    "summaries": SummaryEval(*texts),
    "rollouts": RolloutEval(evaluate.rollouts, tuple(evaluate.target_returns)),
    "valid_texts": ValidTextsEval(evaluate.texts, evaluate.texts_per_step),
  }


def with_auxiliary(config: ConfigDict, trainer: Trainer) -> Trainer:
  """Returns the trainer with its auxiliary losses; raises ConfigError."""
  losses = tuple(config.train.auxiliary)
  try:
    return dataclasses.replace(trainer, auxiliary=losses) if losses else trainer
  except SpecError as error:
    raise ConfigError(f"train.auxiliary={losses}: {error}") from error


def scored_by(config: ConfigDict, evaluator: Evaluator) -> Evaluator:
  """Returns the evaluator of the config's split; raises ConfigError without one."""
  try:
    return with_split(evaluator, config.evaluate.split)
  except ValueError as error:
    split = config.evaluate.split
    raise ConfigError(
      f"evaluate.split={split} with task={config.task}: {error}"
    ) from error


def chosen_measures(specs: Iterable[str]) -> tuple[Measure, ...]:
  """Returns measures; raises ConfigError where two have one name."""
  chosen = tuple(map(measures.build, specs))
  names = [*map(name_of, chosen)]
  if twice := [name for name in names if names.count(name) > 1]:
    raise ConfigError(f"evaluate.measures has {twice[0]} twice; drop one")
  return chosen


def checked_pmap(config: ConfigDict, trainer: Trainer) -> bool:
  """Returns mesh.pmap; raises ConfigError where a training cannot be split so."""
  if config.mesh.pmap:
    if hosts.count() > 1:
      raise ConfigError("mesh.pmap=True is for one process; write mesh.pmap=False")
    try:
      pmap.on_each_device(trainer)
    except ValueError as error:
      raise ConfigError(f"mesh.pmap=True: {error}") from error
  return bool(config.mesh.pmap)


def chosen_metrics(specs: Iterable[str], model: Any) -> tuple[StepMetric, ...]:
  """Returns metrics of steps; raises ConfigError where a model has no such metric."""
  chosen = tuple(map(step_metrics.build, specs))
  for metric in chosen:
    if refused := metric.refusal(model):
      raise ConfigError(f"train.metrics={metric.name}: {refused}")
  return chosen


def architecture(config: ConfigDict, task: Task) -> Architecture:
  """Returns the architecture of the config's model for a task; raises ConfigError."""
  model, dims = config.model, _dims(config, task)
  check_heads(config, dims)
  kind = KINDS[model.kind]
  encoders = model.layers * kind.has_encoder
  decoders = model.layers * kind.has_decoder
  check_kind(config, task)
  outputs = output_size(task)
  arch = Architecture(
    dims,
    position=model.position,
    core=model.core,
    attention=model.attention,
    norm=model.norm,
    activation=model.activation,
    norm_placement=model.norm_placement,
    embedding=model.embedding,
    head=model.head,
    encoders=encoders,
    decoders=decoders,
    prefix="prefix" in kind.uses,
    dropout=model.dropout,
    attention_dropout=model.attention_dropout,
    tied=model.tied and not outputs,
    classes=outputs,
    feedforward_kind=model.feedforward_kind,
    convolution=model.convolution,
    feedforward_bias=model.feedforward_bias,
    dtype=model.dtype,
    scan=model.scan,
    remat=model.remat,
  )
  check_norm(config, arch, task)
  check_embedding(config, arch, task)
  check_head(config, arch, task)
  check_attention(config, arch)
  return arch


def _dims(config: ConfigDict, task: Task) -> Dims:
  model = config.model
  return Dims(
    V=task.vocabulary,
    D=model.width,
    H=model.heads,
    F=model.feedforward,
    L=task.tokens(config.train.length),
    K=model.head_width,
  )


def check_family(config: ConfigDict, family: Any) -> None:
  """Raises ConfigError where a key is set that this family of models does not have."""
  default = base.get_config().model
  # A user's family may not declare any.
  for name in getattr(family, "lacks", ()):
    if config.model[name] != default[name]:
      raise ConfigError(
        f"model.{name}={config.model[name]}: model.family={config.model.family} has no"
        f" {name}; leave it at {default[name]}"
      )


def check_kind(config: ConfigDict, task: Task) -> None:
  """Raises ConfigError unless the kind of model fits the task."""
  kind = config.model.kind
  if kind == task.kind:
    return
  inner = getattr(task, "task", task)
  spec = config.task if inner is task else config.task.partition("(")[2][:-1]
  other = KINDS[kind].adapter.format(spec if isinstance(inner, Strings) else "copy")
  raise ConfigError(
    f"model.kind={kind} cannot read task={config.task}: write"
    f" --config.model.kind={task.kind}, or --config.task='{other}'"
  )


def check_norm(config: ConfigDict, arch: Architecture, task: Task) -> None:
  """Raises ConfigError where a norm reads batches that have no statistics."""
  if not arch.reads_batch:
    return
  train = config.train
  if refused := batch_statistics.refusal(task, train.batch_size, train.accumulate):
    raise ConfigError(f"model.norm={config.model.norm}: {refused}")


def check_embedding(config: ConfigDict, arch: Architecture, task: Task) -> None:
  """Raises ConfigError unless the embedding fits the task's inputs."""
  inputs = jax.eval_shape(lambda: task.example(config.train.length))
  refused = arch.embedding.refusal(inputs, arch.dims.L)
  if refused:
    raise ConfigError(
      f"model.embedding={config.model.embedding} with task={config.task}: {refused}"
    )


def check_head(config: ConfigDict, arch: Architecture, task: Task) -> None:
  """Raises ConfigError where a pooling head is to predict tokens."""
  if arch.head.pooled and not task.whole:
    raise ConfigError(
      f"model.head={config.model.head} with task={config.task}: all tokens would get"
      " the same prediction; write --config.model.head=linear"
    )


def check_heads(config: ConfigDict, dims: Dims) -> None:
  """Raises ConfigError unless the attention of each layer fits the model's sizes."""
  attention = attentions.build(config.model.attention)
  try:
    for n in range(config.model.layers):
      attention.layer(n).projections().fit(dims)
  except ValueError as error:
    raise ConfigError(f"model.attention={config.model.attention}: {error}") from error


def check_attention(config: ConfigDict, arch: Architecture) -> None:
  """Raises ConfigError unless encoding, variant and core work in the whole model."""
  model, dims = config.model, arch.of_decoder.dims
  keys = "kind", "position", "attention", "core"
  chosen = ", ".join(f"model.{key}={model[key]}" for key in keys)
  dropout = model.attention_dropout > 0
  for use in KINDS[model.kind].uses:
    refused = refusal(
      arch.position, arch.core, use, variant=arch.attention, dropout=dropout
    )
    if refused:
      raise ConfigError(f"{chosen}: {refused}")
  num_positions = arch.position.num_positions(dims)
  if num_positions is not None and num_positions < dims.L:
    raise ConfigError(
      f"model.position={model.position} has {num_positions} positions, training needs"
      f" {dims.L}; give it more, or lower train.length"
    )


def check_decoder(config: ConfigDict, arch: Architecture) -> None:
  """Raises ConfigError unless a decoder's other sizes fit the variant and the mesh."""
  dims, shape = arch.decoder_dims, MeshShape(**config.mesh)
  if dims is None:
    return
  check_attention(config, arch)
  for key, letter in SPLIT.items():
    (axis, parts), size = shape.parts(letter), getattr(dims, letter)
    if size % parts:
      raise ConfigError(
        f"model.family={config.model.family}: the decoder's {key.partition('.')[2]}="
        f"{size} is not a multiple of mesh.{axis}={parts}; change one of them"
      )
