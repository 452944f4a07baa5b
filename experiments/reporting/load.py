"""Folder of a sweep, read back as values; unreadable files are named.

<workdir>/sweep.json is the plan; runs/<id> has the files of each run: see run_files.py.
"""

import dataclasses
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

from experiments.reporting.loaded_run import LoadedRun, Sweep
from experiments.reporting.run_files import evaluations, json_object, read_run
from experiments.setup.primary import Comparisons, from_json
from experiments.setup.validate import ConfigError
from transformer_jax.untrusted import shown


class ReportError(ValueError):
  """A folder without a readable sweep.json; the message says what to do next.

  >>> try:
  ...   read("no/such/sweep")
  ... except ReportError as error:
  ...   print(str(error).partition(":")[0])
  no sweep.json in no/such/sweep
  """


def read(workdir: str | os.PathLike[str]) -> Sweep:
  """Reads a sweep's folder; raises ReportError when it has no readable sweep.json."""
  root = pathlib.Path(workdir)
  plan = _plan(root)
  planned = [x for x in plan.get("runs", ()) if isinstance(x, dict) and "id" in x]
  runs = _distinct([read_run(_folder(root, entry), entry) for entry in planned])
  groups = dict.fromkeys(
    [*map(shown, plan.get("groups", ())), *(r.group for r in runs)]
  )
  again = [x for run in runs for x in evaluations(root / "runs" / run.id, run)]
  groups = _with_evaluations(groups, again)
  runs += again
  folders = {path.name for path in (root / "runs").glob("*") if path.is_dir()}
  baseline = plan.get("baseline")
  return Sweep(
    workdir=root,
    question=shown(plan.get("question", "")),
    config=shown(plan.get("config", "")),
    command=shown(plan.get("command", "")),
    baseline=None if baseline is None else shown(baseline),
    groups=tuple(groups),
    runs=tuple(runs),
    unplanned=len(folders - {run.id for run in runs}),
    comparisons=_declared(root, plan.get("comparisons")),
  )


def _declared(workdir: pathlib.Path, values: Any) -> Comparisons:
  """Returns the primary comparisons of sweep.json; older ones have the default."""
  try:
    return from_json(_shown(values))
  except ConfigError as error:
    raise ReportError(f"{workdir / 'sweep.json'}: {error}") from error


def _shown(value: Any) -> Any:
  """Returns a JSON value with its texts as the page writes them, as labels are."""
  if isinstance(value, list):
    return [*map(_shown, value)]
  if isinstance(value, dict):
    return {name: _shown(x) for name, x in value.items()}
  return shown(value) if isinstance(value, str) else value


def _plan(workdir: pathlib.Path) -> dict:
  path = workdir / "sweep.json"
  if not path.is_file():
    raise ReportError(
      f"no sweep.json in {workdir}: name the folder that experiments.sweep wrote,"
      " --workdir=<folder>"
    )
  plan, trouble = json_object(path)
  lists = [plan.get(name, []) for name in ("runs", "groups")]
  if not all(isinstance(each, list) for each in lists):
    trouble = trouble or "is damaged (runs and groups are no lists)"
  if trouble:
    raise ReportError(f"{path} {trouble}: run the sweep again, finished runs are kept")
  return plan


def _folder(workdir: pathlib.Path, entry: dict) -> pathlib.Path:
  """Returns a run's folder, which is below that of the sweep and nowhere else."""
  name = str(entry["id"])
  path = pathlib.PurePath(name)
  if path.is_absolute() or not path.parts or ".." in path.parts:
    raise ReportError(
      f"{workdir / 'sweep.json'} names a run {name!r:.80}, which is no name of a folder"
      " in runs/; copy it again"
    )
  return workdir / "runs" / name


def _with_evaluations(
  groups: Iterable[str], again: Sequence[LoadedRun]
) -> dict[str, None]:
  """Returns the groups, each with those of its runs that were scored again."""
  return {
    name: None
    for group in groups
    for name in (group, *sorted({x.group for x in again if x.again_of == group}))
  }


def _distinct(runs: list[LoadedRun]) -> list[LoadedRun]:
  """Adds the id to a label that an earlier run of its group has.

  The earlier one may be the baseline, and keeps its name.
  """
  labels: set[tuple[str, str]] = set()
  distinct = []
  for run in runs:
    taken = (run.group, run.label) in labels
    labels.add((run.group, run.label))
    label = f"{run.label} [{run.id}]" if taken else run.label
    distinct.append(dataclasses.replace(run, label=label))
  return distinct
