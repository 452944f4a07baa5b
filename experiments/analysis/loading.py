"""Finished runs and sweeps, loaded from their folders."""

import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax

from experiments import inference
from experiments.analysis.trained_run import TrainedRun
from experiments.generate import Bytes
from experiments.reporting import by_seed, load
from experiments.runner import state
from experiments.runner.saved_run import of_run
from experiments.setup.validate import ConfigError
from transformer_jax.data.tasks.language.text import Text
from transformer_jax.spec import nearest, trust


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
