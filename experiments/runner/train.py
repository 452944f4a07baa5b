"""Training and evaluation of one config, all its seeds: data to result."""

import dataclasses
import functools
import tempfile
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from experiments.runner import (
  compile_cache,
  core_devices,
  generated_texts,
  goodput,
  inputs,
  training_text,
)
from experiments.runner.attempt_watch import WHILE_TRAINING, AttemptWatch
from experiments.runner.build import Experiment, build
from experiments.runner.compile_cache import programs_in
from experiments.runner.locks import check
from experiments.runner.pretrained import Pretrained, checksum, read_pretrained
from experiments.runner.result import cost_of, result_of, state_bytes
from experiments.runner.train_blocks import Training, extended
from experiments.setup.registries import registries, specs
from experiments.setup.validate import flatten
from transformer_jax import hosts
from transformer_jax.attention.cores import auto
from transformer_jax.data.base import Task, TaskData
from transformer_jax.devices import split_rows
from transformer_jax.evaluation import example_scores, target_fingerprints
from transformer_jax.spec import outside
from transformer_jax.training import dispatch, sharding
from transformer_jax.training.dispatch import Program
from transformer_jax.untrusted import shown


@functools.lru_cache(maxsize=4)  # runs share texts
def load(task: Task) -> TaskData:
  """Returns a task's data and prints its notes.

  A task without a fingerprint of its data gets that of its arrays.
  """
  data = TaskData.of(task)
  arrays, facts = data
  for sentence in facts.get("notes", ()):
    print(f"note: {shown(sentence)}", flush=True)
  leaves = {jax.tree_util.keystr(p): x for p, x in jax.tree.leaves_with_path(arrays)}
  fingerprint = {"fingerprint": checksum(leaves)} if leaves else {}
  return TaskData(arrays, fingerprint | facts, data.fitted)


def run(config: ConfigDict, folder: Path, name: str, stop: Any) -> dict | None:
  """Returns the content of result.json, or None where the run was stopped.

  config   validated
  folder   of the run: checkpoints, metrics, translations and tokenizer go there
  name     label of the progress bar
  stop     becomes true when the run should save and return
  """
  # Programs are cached below the sweep's folder, so that deleting it leaves nothing.
  with programs_in(compile_cache.folder_of(folder.absolute().parents[1])):
    watch = AttemptWatch(folder, writes=hosts.is_leader())
    watch.write()
    auto.start_record()
    try:
      return _run(config, folder, name, stop, watch)
    finally:
      watch.write()


def _run(
  config: ConfigDict, folder: Path, name: str, stop: Any, watch: AttemptWatch
) -> dict | None:
  with watch.phase("prepare"):
    experiment, mesh, arrays, facts = hosts.together(
      "the data", lambda: _prepare(config)
    )
    fitted_data = load(experiment.task).fitted
    hosts.from_leader(
      "the vocabulary", lambda: experiment.task.keep(folder, fitted_data)
    )
    start = hosts.together(
      "the first parameters",
      lambda: read_pretrained(config.train.init_from, experiment, folder),
    )
    now = _inputs(facts, start)
    hosts.from_leader("the inputs", lambda: inputs.check(folder, now, inputs.DATA))
  training = Training(
    compile=lambda own: start.into(_compile(own, arrays, mesh)),
    arrays=arrays,
    mesh=mesh,
    folder=folder,
    name=name,
    stop=stop,
    watch=watch,
  )
  fitted, measured = training.run(experiment)
  if not fitted.finished:
    return None
  with watch.phase("evaluate"), jax.set_mesh(mesh):
    scores, examples = experiment.evaluator.run_examples(
      fitted.state.eval_params, arrays, experiment.lengths
    )
    singles = examples.of_seeds(experiment.seeds)
    hosts.from_leader("the examples", lambda: _write_examples(folder, singles))
    scored = target_fingerprints.of_lengths(
      experiment.evaluator, arrays, experiment.lengths
    )
    written = generated_texts.write(
      experiment, fitted_data, fitted.state.eval_params, mesh, folder
    )
  with watch.phase("prepare"):
    cost = cost_of(experiment, arrays, mesh)
  return {
    **result_of(experiment, fitted, scores, written),
    **cost,
    **measured,
    "seconds": _seconds(watch, extended(folder)),
    "goodput": goodput.summary(watch.attempts()),
    "data": facts,
    "targets": scored,
    "mesh": dict(mesh.shape),
    **start.facts,
  }


def _write_examples(folder: Path, scores: example_scores.ExampleScores) -> None:
  check(folder)  # that no other process took the run over
  example_scores.write(folder, scores)


def _seconds(watch: AttemptWatch, earlier: dict[str, Any]) -> dict[str, float]:
  """Returns the seconds of this attempt, and those of an earlier one's training.

  Those of training include its checkpoints and its waiting for data.
  """
  seconds = dict(watch.seconds)
  inside = sum(seconds.pop(name, 0.0) for name in WHILE_TRAINING)
  seconds["train"] = seconds.get("train", 0.0) + inside
  for phase in ("compile", "train"):
    seconds[phase] = seconds.get(phase, 0.0) + earlier.get("seconds", {}).get(
      phase, 0.0
    )
  return seconds


def _inputs(facts: dict[str, Any], start: Pretrained) -> dict[str, str]:
  """Returns {name: fingerprint} of data, tokenizer and pretrained weights."""
  weights = start.facts.get("start", {})
  named = {
    "the data": facts.get("fingerprint"),
    "the tokenizer": facts.get("vocabulary"),
    f"the weights in {weights.get('folder')}": weights.get("weights"),
  }
  return {name: value for name, value in named.items() if value}


def describe(config: ConfigDict, compiled: bool = False) -> dict[str, Any]:
  """Returns the cost of a run and its pretrained parameters; trains nothing.

  compiled   also read the data and compile, for the peak memory

  Raises ConfigError for pretrained parameters as a run does.
  """
  experiment, mesh = _built(config)
  arrays = _loaded(experiment, mesh)[0] if compiled else experiment.task.abstract()
  if compiled or mesh.size > 1 or _has_user_code(config):
    _check_scores(experiment, mesh, arrays)
  else:
    params = experiment.trainer.shapes.params
    experiment.evaluator.check_longest(params, experiment.lengths)
  start = Pretrained()
  if config.train.init_from:  # its vocabulary is compared with that of the data
    with tempfile.TemporaryDirectory() as folder:
      experiment.task.keep(Path(folder), load(experiment.task).fitted)
      start = read_pretrained(config.train.init_from, experiment, Path(folder))
  cost = cost_of(experiment, arrays, mesh) | {"state_bytes": state_bytes(experiment)}
  if compiled:
    cost["peak_bytes"] = _compile(experiment, arrays, mesh).peak_bytes
  return {**cost, **start.facts}


def _prepare(config: ConfigDict) -> tuple[Experiment, Mesh, Any, dict]:
  """Returns experiment, mesh, the data on the devices, and the facts on the data.

  Raises what evaluation would raise after training, before anything compiles.
  """
  experiment, mesh = _built(config)
  arrays, facts = _loaded(experiment, mesh)
  _check_scores(experiment, mesh, arrays)
  return experiment, mesh, arrays, facts


def _built(config: ConfigDict) -> tuple[Experiment, Mesh]:
  experiment = build(config)
  mesh = sharding.make_mesh(**dataclasses.asdict(core_devices.here(config)))
  split = functools.partial(split_rows, mesh=mesh)
  evaluator = dataclasses.replace(experiment.evaluator, split=split)
  return dataclasses.replace(experiment, evaluator=evaluator), mesh


def _loaded(experiment: Experiment, mesh: Mesh) -> tuple[Any, dict]:
  task = experiment.task
  arrays, facts = load(task)
  task.check(arrays, experiment.trainer.length)
  arrays, where = training_text.placed(task, arrays, experiment.text)
  passes = training_text.epochs(experiment.trainer, arrays)
  return sharding.whole(mesh, arrays), {**facts, **where, **passes}


def _check_scores(experiment: Experiment, mesh: Mesh, arrays: Any) -> None:
  """Raises the errors of evaluation; arrays may be shapes."""
  state = dispatch.abstract_state(experiment.trainer, len(experiment.seeds), mesh)
  with jax.set_mesh(mesh):
    experiment.evaluator.check(state.eval_params, arrays, experiment.lengths)


def _has_user_code(config: ConfigDict) -> bool:
  """Returns whether a config names classes outside the project."""
  flat = flatten(config)
  return any(outside(spec) for key in registries() for spec in specs(flat[key]))


def _compile(experiment: Experiment, arrays: Any, mesh: Mesh) -> Program:
  trainer, seeds = experiment.trainer, experiment.seeds
  count = experiment.budget.per_dispatch
  return dispatch.compile_steps(
    trainer, seeds, arrays, mesh, count, experiment.metrics, experiment.pmap
  )
