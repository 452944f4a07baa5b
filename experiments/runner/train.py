"""Training and evaluation of one config: all seeds in one program, data to result."""

import dataclasses
import functools
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from experiments.runner import inputs, run_folder
from experiments.runner.build import (
  Experiment,
  build,
  cores_used,
  flops_per_token,
  sizes,
  tokens_per_step,
)
from experiments.runner.compile_cache import programs_in
from experiments.runner.pretrained import Pretrained, checksum, read_pretrained
from experiments.runner.timing import Stopwatch
from experiments.setup.validate import flatten, registries
from transformer_jax.data.base import Task, TaskData
from transformer_jax.evaluation import target_fingerprints
from transformer_jax.evaluation.generation_eval import MEASURES as WRITTEN
from transformer_jax.evaluation.generation_eval import NO_TEXT
from transformer_jax.evaluation.lengths import MEASURES
from transformer_jax.evaluation.translator import Translator
from transformer_jax.spec import outside
from transformer_jax.training import loop, sharding
from transformer_jax.training.checkpoint import Keeper
from transformer_jax.training.json_files import write_json
from transformer_jax.training.loop import FitResult, Program
from transformer_jax.training.metrics_log import MetricLog
from transformer_jax.training.progress import Progress
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
  with programs_in(folder.absolute().parents[1] / "compiled"):
    return _run(config, folder, name, stop)


def _run(config: ConfigDict, folder: Path, name: str, stop: Any) -> dict | None:
  watch = Stopwatch()
  with watch.phase("prepare"):
    experiment, mesh, arrays, facts = _prepare(config)
    experiment.task.keep(folder, load(experiment.task).fitted)
    start = read_pretrained(config.train.init_from, experiment, folder)
    inputs.check(folder, _inputs(facts, start), inputs.DATA)
    program = start.into(_compile(experiment, arrays, mesh))
  with watch.phase("train"):
    fitted, measured = _fit(experiment, program, arrays, folder, name, stop)
  if not fitted.finished:
    return None
  with watch.phase("evaluate"), jax.set_mesh(mesh):
    scores = experiment.evaluator.run(
      fitted.state.eval_params, arrays, experiment.lengths
    )
    scored = target_fingerprints.of_lengths(
      experiment.evaluator, arrays, experiment.lengths
    )
    written = _write(experiment, fitted, mesh, folder)
  with watch.phase("prepare"):
    cost = _cost(experiment, arrays, mesh)
  return {
    **_outcome(experiment, fitted, scores, written),
    **cost,
    "peak_bytes": program.peak_bytes,
    **measured,
    "seconds": watch.seconds,
    "data": facts,
    "targets": scored,
    "mesh": dict(mesh.shape),
    **start.facts,
  }


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
  cost = _cost(experiment, arrays, mesh) | {"state_bytes": _state_bytes(experiment)}
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
  mesh = sharding.make_mesh(**config.mesh)
  split = functools.partial(sharding.split_rows, mesh)
  evaluator = dataclasses.replace(experiment.evaluator, split=split)
  return dataclasses.replace(experiment, evaluator=evaluator), mesh


def _loaded(experiment: Experiment, mesh: Mesh) -> tuple[Any, dict]:
  arrays, facts = load(experiment.task)
  experiment.task.check(arrays, experiment.trainer.length)
  return sharding.whole(mesh, arrays), facts


def _check_scores(experiment: Experiment, mesh: Mesh, arrays: Any) -> None:
  """Raises the errors of evaluation; arrays may be shapes."""
  seeds = len(experiment.seeds)

  def stack(x: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((seeds, *x.shape), x.dtype)

  params = jax.tree.map(stack, experiment.trainer.shapes.params)
  with jax.set_mesh(mesh):
    experiment.evaluator.check(params, arrays, experiment.lengths)


def _has_user_code(config: ConfigDict) -> bool:
  """Returns whether a config names classes outside the project."""
  flat = flatten(config)
  return any(outside(flat[key]) for key in registries())


def _compile(experiment: Experiment, arrays: Any, mesh: Mesh) -> Program:
  trainer, seeds = experiment.trainer, experiment.seeds
  return loop.compile_steps(
    trainer, seeds, arrays, mesh, experiment.budget.per_dispatch
  )


def _fit(
  experiment: Experiment,
  program: Program,
  arrays: Any,
  folder: Path,
  name: str,
  stop: Any,
) -> tuple[FitResult, dict[str, Any]]:
  """Trains with checkpoints, a metric log and a progress bar.

  program   the compiled dispatch
  arrays    the task's data, on the devices
  folder    of the run
  name      label of the progress bar
  stop      becomes true when training should save and return

  Returns, beside the outcome, the speed in tokens/s and the steps without metrics.
  """
  trainer, budget = experiment.trainer, experiment.budget
  tokens = tokens_per_step(trainer, arrays)
  tokens *= budget.per_dispatch * len(experiment.seeds)
  speeds: list[float] = []
  record_step = run_folder.recorder(folder)

  def dispatches(last: int) -> range:
    return range(budget.per_dispatch, last + 1, budget.per_dispatch)

  with (
    MetricLog(folder) as record,
    Progress(budget.steps, name) as bar,
    Keeper(folder / "checkpoints", experiment.keep) as keeper,
  ):

    def report(progress: loop.DispatchMetrics) -> None:
      speeds.append(tokens / progress.seconds)
      for place, seed in enumerate(experiment.seeds):
        metrics = {key: x_S[place] for key, x_S in progress.metrics.items()}
        record.write(progress.step, seed, **metrics, tokens_per_s=speeds[-1])
      record_step(progress.step)
      shown = _losses(progress.metrics["loss"], progress.diverged)
      bar.update(progress.step, **shown, tokens_per_s=speeds[-1])

    def resumed(step: int) -> None:
      record.resume(dispatches(step), experiment.seeds)
      if step:
        bar.update(step, resumed=f"from step {step}")

    fitted = loop.fit(program, arrays, budget, keeper, report, resumed, stop)
    lost = record.mend(dispatches(fitted.step), experiment.seeds)
  speed = statistics.median(speeds) if speeds else float("nan")
  return fitted, {"tokens_per_s": speed, **({"rows_lost": lost} if lost else {})}


def _losses(loss_S: np.ndarray, diverged: int) -> dict[str, float | str]:
  """Returns the mean loss of the finite seeds, and the number of diverged ones."""
  finite_S = np.isfinite(loss_S)
  losses: dict[str, float | str] = {}
  if finite_S.any():
    losses["loss"] = float(loss_S[finite_S].mean())
  if diverged:
    losses["diverged"] = f"{diverged} of {len(loss_S)} seeds"
  return losses


def _write(experiment: Experiment, fitted: FitResult, mesh: Mesh, folder: Path) -> dict:
  """Returns the scores of each seed's generations, and writes the texts to a file."""
  writing, task = experiment.writing, experiment.task
  examples = task.generation_set(load(task).fitted) if writing.most else None
  if examples is None:
    return {}
  trainer, all_params = experiment.trainer, jax.device_get(fitted.state.eval_params)
  tokenizer, place = examples.tokenizer, functools.partial(sharding.place_rows, mesh)

  def translator(seed_index: int) -> Translator:
    # On the devices once, not with every batch of texts.
    params = jax.tree.map(lambda x: x[seed_index], all_params)
    params = sharding.whole(mesh, params)
    return Translator(trainer.model, params, tokenizer, trainer.length, place)

  seeds = experiment.seeds
  scores = writing.record(examples, [translator(n) for n in range(len(seeds))])
  hypotheses = scores.pop("all")  # one list of texts for each seed, of the first texts
  lines = [
    {"source": source, "reference": reference}
    | {f"seed {seed}": text for seed, text in zip(seeds, texts, strict=True)}
    for source, reference, *texts in zip(
      examples.sources, examples.references, *hypotheses, strict=False
    )
  ]
  write_json(folder / "translations.json", lines)
  return scores


def _outcome(
  experiment: Experiment, fitted: FitResult, scores: list[dict], written: dict
) -> dict:
  """Returns the scores by seed; a diverged seed has none.

  scores    those of the task's measures, by seed index
  written   those of generated texts, {} without any
  """
  seeds, task = experiment.seeds, experiment.task
  place = {"length": experiment.trainer.length, "part": "mean"}
  scores = [
    {"seed": n, "measure": name, "value": value, **place}
    | ({"reason": NO_TEXT} if value is None else {})
    for n, values in enumerate(written.get("scores", ()))
    for name, value in values.items()
  ] + scores
  lost = {seeds[place]: step for place, step in fitted.diverged.items()}
  named = [score | {"seed": seeds[score["seed"]]} for score in scores]

  def without_diverged(score: dict) -> dict:
    step = lost.get(score["seed"])
    gone = {"value": None, "reason": f"diverged at step {step}"}
    return score if step is None else score | gone

  return {
    "seeds": list(seeds),
    "measures": [
      *({"name": m, "better": better} for m, better in WRITTEN.items() if written),
      *({"name": m, "better": MEASURES[m].better} for m in task.measures),
    ],
    "train_length": experiment.trainer.length,
    "lengths": list(experiment.lengths),
    "scores": [without_diverged(score) for score in named],
    "undefined": _undefined(experiment, named, lost),
    "diverged": {str(seed): step for seed, step in lost.items()},
    **({"written": written} if written else {}),
  }


def _undefined(
  experiment: Experiment, scores: list[dict], lost: Mapping[int, int]
) -> dict[str, str]:
  """Returns {length: reason} of the lengths without a score, in some or all seeds.

  lost   {seed: step of divergence}
  """
  undefined = {}
  for length in experiment.lengths:
    here = [s for s in scores if s["length"] == length and s["seed"] not in lost]
    scored = {s["seed"] for s in here if s["value"] is not None}
    reasons = {s["seed"]: s.get("reason", "") for s in here if s["seed"] not in scored}
    if always := experiment.evaluator.undefined(length):
      undefined[str(length)] = always
    elif reasons:
      same = len({*reasons.values()}) == 1 and not scored
      parts = [f"seed {seed}: {reason}" for seed, reason in reasons.items()]
      undefined[str(length)] = "; ".join([*reasons.values()][:1] if same else parts)
  return undefined


def _cost(experiment: Experiment, arrays: Any, mesh: Mesh) -> dict[str, Any]:
  """Returns parameters and FLOPs of one seed, and the attention cores of its model."""
  parameters, positional = sizes(experiment.trainer.shapes.params)
  arch = experiment.trainer.model.arch
  with jax.set_mesh(mesh):
    used, refused = cores_used(arch, _tokens(experiment))
  return {
    "parameters": parameters,
    "position_parameters": positional,
    "flops_per_token": flops_per_token(experiment, arrays),
    "core": used,
    "core_refusals": refused,
  }


def _state_bytes(experiment: Experiment) -> int:
  """Returns the bytes of parameters, their average and moments, of all seeds."""
  state = experiment.trainer.shapes
  leaves = jax.tree.leaves((state.params, state.moments, state.ema_params))
  return len(experiment.seeds) * sum(x.size * x.dtype.itemsize for x in leaves)


def _tokens(experiment: Experiment) -> tuple[int, ...]:
  """Returns the numbers of tokens of trained and scored texts, growing."""
  task, length = experiment.task, experiment.trainer.length
  return tuple(sorted({task.tokens(n) for n in (length, *experiment.lengths)}))
