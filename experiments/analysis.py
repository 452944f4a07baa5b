"""Finished runs and sweeps from Python: parameters, scores, texts, activations.

from experiments import load_run, load_sweep
run = load_run("runs/quickstart/runs/ID")
frame = load_sweep("runs/quickstart").frame("model.position")
"""

import dataclasses
import functools
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from experiments import inference, probing, token_texts
from experiments.answers import generate
from experiments.generate import Bytes
from experiments.reporting import by_seed, load
from experiments.reporting.probe_result import ProbeResult, ProbeSettings
from experiments.runner import state, train
from experiments.runner.build import Experiment
from experiments.runner.saved_run import of_run
from experiments.setup.validate import ConfigError
from transformer_jax.analysis import HeadAnalysis, head_statistics
from transformer_jax.analysis.head_analysis import EVEN
from transformer_jax.data.base import Batch, Task
from transformer_jax.data.tasks.language.text import Text
from transformer_jax.evaluation import activations, example_scores
from transformer_jax.evaluation.example_scores import ExampleScores
from transformer_jax.models import Transformer
from transformer_jax.spec import nearest, trust
from transformer_jax.training import sharding
from transformer_jax.training.json_files import warn
from transformer_jax.training.objectives import objective_of


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedRun:
  """A finished run: config, model, task, parameters by seed, and scores.

  folder       of the run
  experiment   the objects of its config
  stacked      parameters of all seeds, NumPy arrays with a leading axis of seeds
  tokenizer    the one it was trained with, `Bytes` for bytes; None: its task has none
  result       content of result.json

  >>> import types
  >>> import numpy as np
  >>> experiment = types.SimpleNamespace(seeds=(3, 5))
  >>> stacked = {"gain_D": np.array([[1.0, 2.0], [3.0, 4.0]])}
  >>> run = TrainedRun(Path("runs/ID"), None, experiment, stacked, None, {})
  >>> run.params[5]["gain_D"].tolist()
  [3.0, 4.0]
  """

  folder: Path
  config: ConfigDict = dataclasses.field(repr=False)
  experiment: Experiment = dataclasses.field(repr=False)
  stacked: Any = dataclasses.field(repr=False)
  tokenizer: Any = dataclasses.field(repr=False)
  result: dict[str, Any] = dataclasses.field(repr=False)

  @property
  def model(self) -> Transformer:
    """Returns the model: `run.model.apply({"params": run.params[0]}, token_BL)`."""
    return self.experiment.trainer.model

  @property
  def task(self) -> Task:
    """Returns the task."""
    return self.experiment.task

  @property
  def seeds(self) -> tuple[int, ...]:
    """Returns the seeds."""
    return self.experiment.seeds

  @property
  def scores(self) -> list[dict[str, Any]]:
    """Returns the recorded scores, {seed, length, measure, part, value} each."""
    return self.result["scores"]

  @functools.cached_property
  def example_scores(self) -> ExampleScores | None:
    """Returns the scores of single examples, from examples.npz; None in older runs.

    `example_scores.value_SE[length, measure, part]` has them, seeds by examples.
    """
    return example_scores.read(self.folder)

  @functools.cached_property
  def params(self) -> dict[int, Any]:
    """Returns {seed: parameters}, those that were scored: with train.ema, the mean."""

    def at(n):
      return jax.tree.map(lambda x: x[n], self.stacked)

    return {seed: at(n) for n, seed in enumerate(self.seeds)}

  def score(self, lengths: Sequence[int] | None = None) -> list[dict[str, Any]]:
    """Returns the scores of all seeds, as `scores` has them, on one device.

    lengths   of the task, in its own unit; None: those of the config

    The data are read again; a line is printed if they have changed since the run.
    Shorter texts are padded, to a length that depends on the longest one: other lengths
    beside one may change its last digits.
    """
    lengths = self.experiment.lengths if lengths is None else tuple(lengths)
    if not lengths or not all(isinstance(n, int) and n > 0 for n in lengths):
      raise ConfigError(
        f"lengths={lengths}: write lengths of the task, as in (64, 256)"
      )
    with jax.set_mesh(sharding.make_mesh()):
      found = self.experiment.evaluator.run(self.stacked, self._arrays, lengths)
    return [score | {"seed": self.seeds[score["seed"]]} for score in found]

  def batch(self, examples: int = 4, length: int | None = None) -> Batch:
    """Returns examples drawn from the scored split, with targets and weights.

    examples   number of rows; fewer if the split has fewer
    length     of the task; None: that of training
    """
    length = self.experiment.trainer.length if length is None else length
    draw = functools.partial(self.task.score, batch_size=examples, bucket=length)
    key = jax.random.key(self.experiment.evaluator.key)
    return jax.jit(draw)(self._arrays, key, length=jnp.int32(length))

  def generate(
    self, prompts: Sequence[Any], seed: int | None = None, **options: Any
  ) -> list[Any]:
    """Returns an output for each prompt; options are those of `answers.generate`.

    prompts   texts, or symbols of an algorithmic task: `run.task.problem(4)[0]`
    seed      of the run; None: its first one
    """
    return generate(self.task, self.of_seed(seed), prompts, **options)

  def attention_weights(
    self, inputs: Any, seed: int | None = None
  ) -> dict[str, jax.Array]:
    """Returns {path: w_BHLM} of all layers: see `activations.attention_weights`.

    inputs   a `batch`, or token_BL
    seed     of the run; None: its first one
    """
    return self._look(activations.attention_weights, inputs, seed)

  def hidden_states(self, inputs: Any, seed: int | None = None) -> dict[str, jax.Array]:
    """Returns {path: x_BLD} of all layers: see `activations.hidden_states`.

    inputs   a `batch`, or token_BL
    seed     of the run; None: its first one
    """
    return self._look(activations.hidden_states, inputs, seed)

  def probe(self, label: str, probe: str = "linear", **settings: Any) -> ProbeResult:
    """Returns the scores of probes of all seeds, by layer.

    label      what is read, as in "position" or "distance(most=8)"
    probe      that reads it
    settings   others of `ProbeSettings`

    `run.probe("position").estimate("probe", layer=0)` is a mean with its interval.
    Raises ConfigError.
    """
    wanted = ProbeSettings(label, probe, **settings)
    return probing.probe(self.experiment, self.params, wanted, self.folder)

  def head_analysis(
    self, examples: int = 128, length: int | None = None, batch_size: int = 32
  ) -> HeadAnalysis:
    """Returns the programs that look at heads: statistics, similarities, importance.

    examples     drawn from the scored split, the same for each seed
    length       of the task; None: that of training
    batch_size   texts in memory at once, with L x M floats for each head

    Raises ConfigError for a length beyond the positions of the encoding.
    """
    trained = self.experiment.trainer.length
    length = trained if length is None else length
    if reason := self.experiment.evaluator.undefined(length):
      raise ConfigError(f"length={length}: {reason}; write {trained} or less")
    batch = self.batch(examples, length)
    words = token_texts.vocabulary(self)
    objective = objective_of(self.task)
    return HeadAnalysis(self.model, batch, words, batch_size, objective)

  def head_statistics(
    self, statistics: Iterable[str] = (), seed: int | None = None, **texts: Any
  ) -> dict[str, dict[str, Any]]:
    """Returns {statistic: {path of a layer: numbers of texts by heads}} of one seed.

    statistics   specs; (): all that are registered
    seed         of the run; None: its first one
    texts        options of `head_analysis`
    """
    params = self.of_seed(seed).params
    analysis = self.head_analysis(**texts)
    specs = tuple(statistics) or tuple(head_statistics)
    run = analysis.statistics({spec: head_statistics.build(spec) for spec in specs})
    with jax.set_mesh(sharding.make_mesh()):
      found = run(params).value_EH
    return {
      name: {path: x for path, x in some.items() if not path.startswith(EVEN)}
      for name, some in found.items()
    }

  def of_seed(self, seed: int | None = None) -> inference.Trained:
    """Returns one seed, as the inference commands use it; None: the first one."""
    seed = self.seeds[0] if seed is None else seed
    if seed not in self.params:
      seeds = ", ".join(map(str, self.seeds))
      raise ConfigError(f"seed={seed}: this run has the seeds {seeds}")
    params = self.params[seed]
    return inference.Trained(
      self.folder, self.config, self.experiment, params, self.tokenizer
    )

  def _look(self, function: Any, inputs: Any, seed: int | None) -> dict[str, jax.Array]:
    reads = inputs.reads if isinstance(inputs, Batch) else (jnp.asarray(inputs),)
    with jax.set_mesh(sharding.make_mesh()):  # `ring` needs one
      return function(self.model, self.of_seed(seed).params, *reads)

  @functools.cached_property
  def _arrays(self) -> Any:
    """Returns the arrays of the task's data."""
    arrays, facts = train.load(self.task)
    then = (self.result.get("data") or {}).get("fingerprint")
    if then not in (None, facts.get("fingerprint")):
      warn(f"the data of {self.folder} have changed since it was trained")
    return arrays


@dataclasses.dataclass(frozen=True)
class LoadedSweep:
  """A sweep's folder: its runs, and their scores as tidy records or a DataFrame.

  sweep   plan and runs, finished or not

  >>> score = {"seed": 0, "length": 32, "measure": "accuracy", "value": 0.5}
  >>> better = {"name": "accuracy", "better": "higher"}
  >>> result = {"train_length": 16, "lengths": [32], "measures": [better]}
  >>> result["scores"] = [score]
  >>> run = load.LoadedRun("a1", "rope", "copy", "finished", result=result)
  >>> plan = load.Sweep(Path("runs"), "", "", "", "rope", ("copy",), (run,))
  >>> [record] = LoadedSweep(plan).records()
  >>> record["variant"], record["times_trained"], record["value"]
  ('rope', 2.0, 0.5)
  """

  sweep: load.Sweep

  def records(self, *keys: str) -> list[dict[str, Any]]:
    """Returns a record for each variant, seed, length, measure and part.

    keys   of configs whose values are added, as in "model.position"
    """
    return by_seed.records(self.sweep, *keys)

  def frame(self, *keys: str) -> Any:
    """Returns the records as a pandas DataFrame; ImportError where pandas is missing.

    keys   of configs whose values are added, as in "model.position"
    """
    try:
      import pandas as pd
    except ImportError as error:
      raise ImportError(
        "frame needs pandas, which is not installed: pip install -e .[pandas], or use"
        " records"
      ) from error
    return pd.DataFrame(self.records(*keys), columns=[*by_seed.COLUMNS, *keys])

  def trained(self, label: str, group: str | None = None) -> TrainedRun:
    """Returns a finished run by its label; raises ConfigError.

    group   needed where several groups have the label
    """
    named = [
      x
      for x in self.sweep.runs
      if x.label == label and group in (None, x.group) and not x.again_of
    ]
    if not named:
      near = nearest(label, (run.label for run in self.sweep.runs))
      raise ConfigError(f"no run is called '{label}' here.{near}")
    if len(named) > 1:
      groups = ", ".join(run.group for run in named)
      raise ConfigError(f"'{label}' is in the groups {groups}: name one, group=...")
    return load_run(self.sweep.workdir / "runs" / named[0].id)


def load_run(
  folder: str | os.PathLike[str],
  average: int = 1,
  allow: Iterable[str] = (),
  step: int | None = None,
) -> TrainedRun:
  """Returns a finished run, whatever its task.

  folder    of the run: the one with config.json
  average   number of newest checkpoints whose mean the parameters are
  allow     classes of your own that its config names, as "module:Class"
  step      of the newest of these checkpoints, which must be on disk still: see
            train.keep_checkpoints; None: the last one, which was scored

  Raises ConfigError unless the run is finished and has its checkpoints; SpecError for a
  class that is not allowed.
  """
  run = Path(folder).expanduser()
  trust(allow)
  if (run / "sweep.json").exists():
    raise ConfigError(f"{run} is a sweep: write load_sweep, or name one of its runs/")
  inference.check_folder(run)
  result = state.result(run)
  if not result:
    now = state.status(run).get("state", "not started")
    raise ConfigError(f"{run} is not finished ({now}): run its sweep again, to the end")
  if not any((run / "checkpoints").glob("[0-9]*")):
    raise ConfigError(f"{run} has no checkpoint: copy its folder checkpoints/ too")
  config, experiment = of_run(run)
  params = jax.device_get(inference.params_of(run, experiment, average, step))
  bytes_ = Bytes() if type(experiment.task) is Text else None
  tokenizer = inference.tokenizer_of(run) or bytes_
  return TrainedRun(run, config, experiment, params, tokenizer, result)


def load_sweep(folder: str | os.PathLike[str]) -> LoadedSweep:
  """Returns a sweep's folder, finished or not; raises ReportError without a plan."""
  return LoadedSweep(load.read(Path(folder).expanduser()))
