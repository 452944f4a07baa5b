"""Search of a tuned plan: a run for each variant and value, and the choice.

Runs of the search are those of a sweep of its own, in the folder tuning/ of the sweep.
"""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.runner import run_folder, sweep_loop
from experiments.runner.state import quiet, result
from experiments.setup.command_line import Request
from experiments.setup.plan import describe
from experiments.setup.runs import Run
from experiments.setup.tuning import SPLIT, Trial, Tune, Tuned, choose, overrides
from experiments.setup.validate import ConfigError, flatten

FOLDER = "tuning"  # below that of the sweep


def trials(run: Run, tune: Tune) -> list[Run]:
  """Returns the runs of one variant's search, in the order of the grid.

  Raises ConfigError where the search has a seed of the report.
  """
  if both := {*tune.seeds} & {*run.config.seeds}:
    raise ConfigError(
      f"tune: seed {min(both)} is one of the report's; a search has other seeds, as in"
      f" Tune(..., seeds=({max(run.config.seeds) + 1},))"
    )
  common = {"seeds": tune.seeds, "evaluate.split": SPLIT, "evaluate.lengths": (1,)}
  return [
    dataclasses.replace(
      run.with_values(overrides(flatten(run.config), values) | common),
      group=f"{run.group} {run.label}",
      label=describe(values),
    )
    for values in tune
  ]


def announce(request: Request, todo: Sequence[Run], tune: Tune) -> None:
  """Prints what the search costs."""
  count = len(todo) * len(tune)
  seeds = ", ".join(map(str, tune.seeds))
  print(
    f"tuning: {count} runs first ({len(todo)} variants x {tune.tried}; seeds {seeds},"
    f" scored on the {SPLIT} split) in {request.workdir / FOLDER}, then {len(todo)}"
    " with the best of each",
    flush=True,
  )


def search(request: Request, todo: Sequence[Run], tune: Tune) -> int:
  """Trains the runs of the search; returns an exit code, 0 if all finished."""
  inner = dataclasses.replace(request, workdir=request.workdir / FOLDER, profile=None)
  every = [trial for run in todo for trial in trials(run, tune)]
  sweep_loop.check(inner, every)
  sweep_loop.begin(inner.workdir, lambda: _content(request, every, tune))
  _, states, stop = sweep_loop.train_all(inner, every)
  if stop.received:
    return sweep_loop.stopped(request, "sweep", stop)
  if states - {"finished"}:
    print(
      "tuning is not finished, and nothing was trained for the report; the same command"
      " continues"
    )
    return 1
  return 0


def _content(request: Request, every: Sequence[Run], tune: Tune) -> dict[str, Any]:
  """Returns sweep.json of the search."""
  return {
    "question": f"Which values are best: {tune.tried}?",
    "config": str(request.path),
    "command": request.command("sweep"),
    "baseline": None,
    "groups": list(dict.fromkeys(trial.group for trial in every)),
    "runs": [trial.entry() for trial in every],
  }


def tuned(workdir: Path, run: Run, tune: Tune) -> Run | None:
  """Returns the run with the values of its best trial; None before all finished.

  workdir   folder of the sweep

  Raises ConfigError where no trial has a score.
  """
  found = trials(run, tune)
  results = [result(run_folder.folder(workdir / FOLDER, x), quiet) for x in found]
  if not all(results):
    return None
  measure = results[0]["measures"][0]
  done = [
    _trial(values, trial, content, tune)
    for values, trial, content in zip(tune, found, results, strict=True)
  ]
  if (best := choose(measure["name"], measure["better"], done)) is None:
    raise ConfigError(
      f"{run.group} {run.label}: no run of its search has a {measure['name']} of every"
      f" seed ({tune.tried}); try other values"
    )
  return _with(run, best)


def _with(run: Run, best: Tuned) -> Run:
  values = overrides(flatten(run.config), best.chosen)
  return dataclasses.replace(run.with_values(values), tuned=best)


def _trial(
  values: dict[str, Any], run: Run, content: dict[str, Any], tune: Tune
) -> Trial:
  """Returns a finished run of the search as a trial."""
  measure, length = content["measures"][0]["name"], content["train_length"]
  cell = (measure, length, "mean")
  by_seed = {
    score["seed"]: score["value"]
    for score in content["scores"]
    if (score["measure"], score["length"], score.get("part", "mean")) == cell
  }
  tokens = content.get("tokens_per_step", 0) * run.config.train.steps
  each = content.get("flops_per_token", 0) * tokens
  return Trial(
    values=values,
    id=run.id,
    scores={str(seed): _finite(by_seed.get(seed)) for seed in tune.seeds},
    seconds=sum(content.get("seconds", {}).values()),
    flops=each * len(tune.seeds),
  )


def _finite(value: float | None) -> float | None:
  return value if value is not None and math.isfinite(value) else None
