"""Runs one config and adds it to the report of its folder.

  python -m experiments.run --config=experiments/configs/quickstart.py \\
    --config.model.position='rope(base=5e5)'

A run that the config's plan holds gets the name it has there; any other is named by its
encoding and its flags. Exit code 0: finished; 1: failed; 2: bad input; 128 + signal:
stopped.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments.runner import declared_looks, history
from experiments.runner.hosts.join import joined
from experiments.runner.sweep_loop import work
from experiments.setup import command_line, config_file, flags, plan, runs
from experiments.setup.command_line import Request
from experiments.setup.validate import ConfigError
from transformer_jax.aside import set_aside
from transformer_jax.training.json_files import (
  FileError,
  read_object,
  reason,
  warn,
)

FLAGS_IN_LABEL = 3


def main(request: Request) -> int:
  """Runs the config that the command line describes."""
  if request.tune:
    raise ConfigError("--tune: a single run is not tuned; use experiments.sweep")
  if request.until:
    raise ConfigError(
      "--until: a single run is compared with nothing; use experiments.sweep"
    )
  run = chosen(request)
  declared_looks.looks_of(request, [run])  # seeds that no look has are refused
  (run,) = history.in_folders(request.workdir, [run])
  return work(request, "run", functools.partial(_added, request, run), [run])


def chosen(request: Request) -> runs.Run:
  """Returns the run; as the plan names it if it is one of the plan's."""
  config, overrides = request.config, request.overrides
  planned = runs.expand(request.plan, request.base, {}) if request.plan else []
  for run in planned:
    if run.id == runs.run_id(config):
      return dataclasses.replace(run, config=config, overrides=overrides)
  return runs.Run(
    id=runs.run_id(config),
    label=_label(config.model.position, overrides),
    group=_group(config, planned),
    config=config,
    overrides=overrides,
  )


def _group(config: ConfigDict, planned: Sequence[runs.Run]) -> str:
  """Returns the run's group; a task outside the plan gets a new one."""
  group = runs.group_of(config, planned)
  tasks = {run.config.task for run in planned if run.group == group}
  return config.task if tasks and config.task not in tasks else group


def _label(position: str, overrides: Mapping[str, Any]) -> str:
  """Returns the encoding and the flags, shortened to fit a table."""
  flags = {k: v for k, v in overrides.items() if k not in ("model.position", "task")}
  if len(flags) > FLAGS_IN_LABEL:
    return f"{position} and {len(flags)} other flags"
  return plan.describe({"model.position": position, **flags})


def _added(request: Request, run: runs.Run) -> dict[str, Any]:
  """Returns the folder's sweep.json with this run added."""
  sweep = _there(request.workdir / "sweep.json") or {
    "question": request.plan.question if request.plan else "",
    "config": config_file.short(request.path),
    "command": command_line.command("run", request.path, request.overrides),
    "baseline": request.plan.baseline if request.plan else None,
    "comparisons": request.plan.comparisons.to_json() if request.plan else None,
    "groups": [],
    "runs": [],
  }
  if run.id not in [entry["id"] for entry in sweep["runs"]]:
    sweep["runs"].append({"id": run.id, "label": run.label, "group": run.group})
  labels = [entry["label"] for entry in sweep["runs"]]
  sweep["baseline"] = sweep["baseline"] if sweep["baseline"] in labels else labels[0]
  sweep["groups"] = list(dict.fromkeys(entry["group"] for entry in sweep["runs"]))
  return sweep


def _there(path: Path) -> dict[str, Any] | None:
  """Returns sweep.json; a damaged one is renamed, with a warning."""
  try:
    sweep = read_object(path)
    if _is_sweep(sweep):
      return sweep
    why = "it names no runs"
  except (FileNotFoundError, IsADirectoryError):
    return None
  except FileError as error:
    why = reason(error)
  warn(
    f"{path} is damaged ({why}); kept as {set_aside(path)}. The report shows this run;"
    " the command of the sweep brings the others back"
  )
  return None


def _is_sweep(sweep: dict[str, Any]) -> bool:
  entries = sweep.get("runs")
  if not isinstance(entries, list) or "baseline" not in sweep:
    return False
  keys = {"id", "label", "group"}
  return all(isinstance(entry, dict) and keys <= entry.keys() for entry in entries)


if __name__ == "__main__":
  flags.start(joined(main))
