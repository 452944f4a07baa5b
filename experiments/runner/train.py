"""Trains and scores one config: all its seeds, in one program, from data to result."""

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
from experiments.runner.pretrained import Start, checksum
from experiments.runner.pretrained import read as read_start
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
  """Returns a task's data; prints what a user should read about it.

  A task that gives no fingerprint of its data gets that of its arrays.
  """
  data = TaskData.of(task)
  arrays, facts = data
  for sentence in facts.get("notes", ()):
    print(f"note: {shown(sentence)}", flush=True)
  leaves = {jax.tree_util.keystr(p): x for p, x in jax.tree.leaves_with_path(arrays)}
  fingerprint = {"fingerprint": checksum(leaves)} if leaves else {}
  return TaskData(arrays, fingerprint | facts, data.fitted)


def run(config: ConfigDict, folder: Path, name: str, stop: Any) -> dict | None:
  """Returns what result.json holds, or None when it was asked to stop.

  name   what the progress bar shows
  stop   becomes true when the run should save and return
  """
  # Programs are kept below the sweep's folder, so that deleting it leaves nothing.
  with programs_in(folder.absolute().parents[1] / "compiled"):
    return _run(config, folder, name, stop)


def _run(config: ConfigDict, folder: Path, name: str, stop: Any) -> dict | None:
  watch = Stopwatch()
  with watch.phase("prepare"):
    experiment, mesh, arrays, facts = _prepare(config)
    experiment.task.keep(folder, load(experiment.task).fitted)
    start = read_start(config.train.init_from, experiment, folder)
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


def _inputs(facts: dict[str, Any], start: Start) -> dict[str, str]:
  """Returns the fingerprints of all that is read from outside."""
  began = start.facts.get("start", {})
  read = {
    "the data": facts.get("fingerprint"),
    "the tokenizer": facts.get("vocabulary"),
    f"the weights in {began.get('folder')}": began.get("weights"),
  }
  return {name: value for name, value in read.items() if value}


def describe(config: ConfigDict, compiled: bool = False) -> dict[str, Any]:
  """Returns what a run would cost, and what it starts from; trains nothing.

  compiled   compile the program too, which takes the data and tells its memory

  Parameters that could not be used are refused as a run refuses them.
  """
  experiment, mesh = _built(config)
  arrays = _loaded(experiment, mesh)[0] if compiled else experiment.task.abstract()
  if compiled or mesh.size > 1 or _names_own_classes(config):
    _check_scores(experiment, mesh, arrays)
  else:
    params = experiment.trainer.shapes.params
    experiment.evaluator.check_longest(params, experiment.lengths)
  start = Start()
  if config.train.init_from:  # its vocabulary is compared with that of the data
    with tempfile.TemporaryDirectory() as folder:
      experiment.task.keep(Path(folder), load(experiment.task).fitted)
      start = read_start(config.train.init_from, experiment, Path(folder))
  cost = _cost(experiment, arrays, mesh) | {"state_bytes": _state_bytes(experiment)}
  if compiled:
    cost["peak_bytes"] = _compile(experiment, arrays, mesh).peak_bytes
  return {**cost, **start.facts}


def _prepare(config: ConfigDict) -> tuple[Experiment, Mesh, Any, dict]:
  """Returns what a run needs, with its data's arrays on the devices, and their facts.

  What could not be scored after training is refused here, before anything compiles.
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
  """Raises what scoring would raise; arrays may be shapes."""
  seeds = len(experiment.seeds)
  stack = lambda x: jax.ShapeDtypeStruct((seeds, *x.shape), x.dtype)
  params = jax.tree.map(stack, experiment.trainer.shapes.params)
  with jax.set_mesh(mesh):
    experiment.evaluator.check(params, arrays, experiment.lengths)


def _names_own_classes(config: ConfigDict) -> bool:
  """Returns whether a user's code is run, which no test here has tried."""
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
  """Trains with checkpoints, a record and a bar.

  Returns, beside how it ended, the speed in tokens/s and which steps have no record.
  """
  trainer, budget = experiment.trainer, experiment.budget
  tokens = tokens_per_step(trainer, arrays)
  tokens *= budget.per_dispatch * len(experiment.seeds)
  dispatches = lambda last: range(budget.per_dispatch, last + 1, budget.per_dispatch)
  speeds = []
  record_step = run_folder.recorder(folder)

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
  """Returns what the bar says: the mean of the seeds that are well, and the others."""
  well_S = np.isfinite(loss_S)
  lost = f"{diverged} of {len(loss_S)} seeds"
  mean = {"loss": float(loss_S[well_S].mean())} if well_S.any() else {}
  return {**mean, "diverged": lost} if diverged else mean


def _write(experiment: Experiment, fitted: FitResult, mesh: Mesh, folder: Path) -> dict:
  """Returns what the texts are worth that each seed writes, and keeps those texts."""
  writing, task = experiment.writing, experiment.task
  asked = task.generation_set(load(task).fitted) if writing.most else None
  if asked is None:
    return {}
  trainer, params = experiment.trainer, jax.device_get(fitted.state.eval_params)
  # On the devices again at once, not with every batch of texts.
  of = lambda seed: sharding.whole(mesh, jax.tree.map(lambda x: x[seed], params))
  rows = functools.partial(sharding.place_rows, mesh)
  fixed = asked.tokenizer, trainer.length, rows
  seeds = range(len(experiment.seeds))
  written = writing.record(
    asked, [Translator(trainer.model, of(seed), *fixed) for seed in seeds]
  )
  names = "reference", *(f"seed {seed}" for seed in experiment.seeds)
  columns = asked.references, *written.pop("all")
  rows = zip(asked.sources, *columns, strict=False)  # as many as were written
  lines = [{"source": x, **dict(zip(names, row, strict=True))} for x, *row in rows]
  write_json(folder / "translations.json", lines)
  return written


def _outcome(
  experiment: Experiment, fitted: FitResult, scores: list[dict], written: dict
) -> dict:
  """Returns the scores by seed; a seed that diverged has none."""
  seeds, task = experiment.seeds, experiment.task
  place = {"length": experiment.trainer.length, "part": "mean"}
  scores = [
    {"seed": n, "measure": name, "value": value, **place}
    | ({"reason": NO_TEXT} if value is None else {})
    for n, own in enumerate(written.get("scores", ()))
    for name, value in own.items()
  ] + scores
  lost = {seeds[place]: step for place, step in fitted.diverged.items()}
  named = [row | {"seed": seeds[row["seed"]]} for row in scores]
  gone = lambda seed: {"value": None, "reason": f"diverged at step {lost[seed]}"}
  return {
    "seeds": list(seeds),
    "measures": [
      *({"name": m, "better": better} for m, better in WRITTEN.items() if written),
      *({"name": m, "better": MEASURES[m].better} for m in task.measures),
    ],
    "train_length": experiment.trainer.length,
    "lengths": list(experiment.lengths),
    "scores": [r | gone(r["seed"]) if r["seed"] in lost else r for r in named],
    "undefined": _undefined(experiment, named, lost),
    "diverged": {str(seed): step for seed, step in lost.items()},
    **({"written": written} if written else {}),
  }


def _undefined(
  experiment: Experiment, scores: list[dict], lost: Mapping[int, int]
) -> dict[str, str]:
  """Returns why a length has no score, by length: in all seeds, or in some of them."""
  undefined = {}
  for length in experiment.lengths:
    own = [r for r in scores if r["length"] == length and r["seed"] not in lost]
    scored = {row["seed"] for row in own if row["value"] is not None}
    reasons = {r["seed"]: r.get("reason", "") for r in own if r["seed"] not in scored}
    if always := experiment.evaluator.undefined(length):
      undefined[str(length)] = always
    elif reasons:
      same = len({*reasons.values()}) == 1 and not scored
      parts = [f"seed {seed}: {reason}" for seed, reason in reasons.items()]
      undefined[str(length)] = "; ".join([*reasons.values()][:1] if same else parts)
  return undefined


def _cost(experiment: Experiment, arrays: Any, mesh: Mesh) -> dict[str, Any]:
  """Returns parameters and FLOPs of one seed, and the attention cores of its model."""
  parameters, own = sizes(experiment.trainer.shapes.params)
  arch = experiment.trainer.model.arch
  with jax.set_mesh(mesh):
    ran, refused = cores_used(arch, _tokens(experiment))
  return {
    "parameters": parameters,
    "position_parameters": own,
    "flops_per_token": flops_per_token(experiment, arrays),
    "core": ran,
    "core_refusals": refused,
  }


def _state_bytes(experiment: Experiment) -> int:
  """Returns the bytes of parameters, their average and moments, of all seeds."""
  state = experiment.trainer.shapes
  leaves = jax.tree.leaves((state.params, state.moments, state.ema_params))
  return len(experiment.seeds) * sum(x.size * x.dtype.itemsize for x in leaves)


def _tokens(experiment: Experiment) -> tuple[int, ...]:
  """Returns how many tokens the texts have that are trained on or scored."""
  task, length = experiment.task, experiment.trainer.length
  return tuple(sorted({task.tokens(n) for n in (length, *experiment.lengths)}))
