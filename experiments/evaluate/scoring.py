"""Scores of finished runs on other lengths, splits, tasks or numbers of examples.

Each is a folder runs/ID/evaluations/NAME with result.json and examples.npz, beside what
was trained, and a group of its own in the report.
"""

import contextlib
import dataclasses
import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import jax

from experiments.analysis import TrainedRun
from experiments.runner import generated_texts, train, user_code
from experiments.runner.build import Experiment
from experiments.runner.pretrained import checksum
from experiments.runner.result import result_of
from experiments.setup.validate import ConfigError, flatten
from transformer_jax.data import task_probe
from transformer_jax.data.base import Task, TaskData, tasks
from transformer_jax.evaluation import splits, target_fingerprints
from transformer_jax.evaluation.example_scores import ExampleScores
from transformer_jax.models.param_tree import flat
from transformer_jax.training import sharding
from transformer_jax.training.json_files import FileError, read_object
from transformer_jax.training.loop import FitResult
from transformer_jax.training.objectives import objective_of

FOLDER = "evaluations"  # below that of a run
FITTED = (
  "tokenizer",
  "labels.json",
  "control.json",
  "series.json",
  "signals.json",
)  # what `Task.keep` writes into a run's folder


@dataclasses.dataclass(frozen=True)
class Scoring:
  """Settings of an evaluation that differ from those of the run; empty: the run's.

  lengths    multiples of the training length
  split      validation or test
  task       another task, or the same one with other options
  examples   scored at each length

  >>> Scoring(lengths=(1, 16), split="validation").label
  'the validation split, 1 and 16 times the length'
  """

  lengths: tuple[int, ...] = ()
  split: str = ""
  task: str = ""
  examples: int = 0

  @property
  def label(self) -> str:
    """Returns the settings in words, for the report."""
    *most, last = map(str, self.lengths or ("",))
    times = f"{', '.join(most)} and {last}" if most else last
    parts = [
      self.task,
      self.split and f"the {self.split} split",
      f"{self.examples:,} examples" if self.examples else "",
      f"{times} times the length" if self.lengths else "",
    ]
    return ", ".join(part for part in parts if part)

  @property
  def name(self) -> str:
    """Returns a short hash of the settings, the name of their folder."""
    text = json.dumps(dataclasses.asdict(self), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]

  def file(self, folder: Path) -> Path:
    """Returns the path of the evaluation of a run; folder is that of the run."""
    return folder / FOLDER / self.name / "result.json"

  def of(self, experiment: Experiment) -> Experiment:
    """Returns a run's experiment with these settings; raises ConfigError.

    Nothing is read and nothing compiles.
    """
    length = experiment.trainer.length
    lengths = tuple(length * multiple for multiple in self.lengths)
    try:
      task = tasks.build(self.task) if self.task else experiment.task
      task_probe.check(task)
      _check_task(experiment.task, task)
      evaluator = dataclasses.replace(
        experiment.evaluator,
        task=task,
        examples=self.examples or experiment.evaluator.examples,
      )
      evaluator = splits.with_split(evaluator, self.split)
      lengths = lengths or experiment.lengths
      evaluator.check_longest(experiment.trainer.shapes.params, lengths)
    except ValueError as error:
      raise ConfigError(str(error)) from error
    return dataclasses.replace(
      experiment, task=evaluator.task, evaluator=evaluator, lengths=lengths
    )


def _check_task(trained: Task, scored: Task) -> None:
  """Raises ValueError unless a model of one task can be scored on the other."""
  differ = {
    name: getattr(scored, name) != getattr(trained, name)
    for name in ("kind", "vocabulary", "classes", "target_numbers", "target_kind")
  }
  differ["objective"] = objective_of(scored) != objective_of(trained)
  for name, other in differ.items():
    if other:
      theirs, ours = getattr(scored, name), getattr(trained, name)
      raise ValueError(
        f"this task's {name} is {theirs} and the run was trained with {ours}: choose"
        " options that agree, or --groups that do"
      )


def score(
  run: TrainedRun, scoring: Scoring, folder: Path
) -> tuple[dict[str, Any], ExampleScores]:
  """Returns an evaluation of all seeds of a run, and the scores of single examples.

  On one device. Raises ConfigError. Of another split or task texts are generated too,
  if the trained length is among the lengths: where they stand in the report. They go
  into translations.json in `folder`.
  """
  experiment = scoring.of(run.experiment)
  data = train.load(experiment.task)
  _check_vocabulary(run.folder, experiment.task, data)
  evaluator, lengths = experiment.evaluator, experiment.lengths
  others = bool(scoring.split or scoring.task)  # texts of the run are scored already
  written: dict[str, Any] = {}
  with jax.set_mesh(mesh := sharding.make_mesh()):
    scores, examples = evaluator.run_examples(run.stacked, data[0], lengths)
    targets = target_fingerprints.of_lengths(evaluator, data[0], lengths)
    if others and experiment.trainer.length in lengths:
      written = generated_texts.write(
        experiment, data.fitted, run.stacked, mesh, folder
      )
  lost = {int(seed): step for seed, step in run.result["diverged"].items()}
  diverged = {run.seeds.index(seed): step for seed, step in lost.items()}
  by = run.result.get("diverged_by", {})
  causes = {run.seeds.index(int(seed)): cause for seed, cause in by.items()}
  no_state: Any = None  # the scores are there already
  fitted = FitResult(no_state, 0, diverged, finished=True, causes=causes)
  result = {
    "label": scoring.label,
    "scoring": dataclasses.asdict(scoring),
    "weights": weights(run),
    **result_of(experiment, fitted, scores, written),
    "targets": targets,
    "data": data[1],
    **_own_code(run, scoring),
  }
  return result, examples.of_seeds(run.seeds)


def weights(run: TrainedRun) -> str:
  """Returns a fingerprint of the parameters that are scored."""
  return checksum(flat(run.stacked))


def is_scored(run: TrainedRun, scoring: Scoring) -> bool:
  """Returns whether these parameters were scored with these settings before."""
  with contextlib.suppress(FileError, OSError):
    done = read_object(scoring.file(run.folder))
    own = _own_code(run, scoring)["own_code"]
    same = done.get("weights") == weights(run) and done.get("seeds") == [*run.seeds]
    return same and done.get("own_code", own) == own
  return False


def _own_code(run: TrainedRun, scoring: Scoring) -> dict[str, Any]:
  """Returns the fingerprints of the user's classes that an evaluation names."""
  task = {"task": scoring.task} if scoring.task else {}
  return user_code.facts(flatten(run.config) | task)


def _check_vocabulary(folder: Path, task: Task, data: TaskData) -> None:
  """Raises ConfigError where a task's tokens or labels are not those of the run."""
  with tempfile.TemporaryDirectory() as name:
    copy = Path(name)
    for path in (folder / each for each in FITTED):
      if path.is_dir():
        shutil.copytree(path, copy / path.name)
      elif path.is_file():
        shutil.copyfile(path, copy / path.name)
    before = {path.name for path in copy.iterdir()}
    try:
      task.keep(copy, data.fitted)
    except ValueError as error:
      raise ConfigError(
        f"the vocabulary or labels of this task are not those that {folder} was trained"
        " with; write tokenizer=\"kept('FOLDER')\" in the task"
      ) from error
    if new := {path.name for path in copy.iterdir()} - before:
      raise ConfigError(
        f"{folder} was trained without {', '.join(sorted(new))}, which this task needs"
      )
