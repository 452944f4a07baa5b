"""Reads the folder of a sweep back as values; what cannot be read is named.

<workdir>/sweep.json is the plan; runs/<id>/{status,config,result}.json and
metrics.jsonl are what came of each run.
"""

import dataclasses
import json
import math
import pathlib
from typing import Any

from experiments.runner.state import damaged
from experiments.setup.identity import completed
from transformer_jax import untrusted
from transformer_jax.untrusted import shown


class ReportError(ValueError):
  """A folder no report can be made of; the message says what to do next."""


@dataclasses.dataclass(frozen=True)
class Run:
  """Holds what is known of one run: its state always, its scores once it finished."""

  id: str
  label: str
  group: str
  state: str  # finished, running, failed, interrupted, damaged, "not started"
  attempts: int = 0
  error: str = ""
  step: int | None = None
  config: dict[str, Any] = dataclasses.field(default_factory=dict)
  result: dict[str, Any] | None = None
  losses: dict[int, dict[int, float]] = dataclasses.field(default_factory=dict)

  @property
  def times(self) -> dict[int, float]:
    """Maps each scored length to how often the trained length fits into it."""
    lengths = self.result["lengths"] if self.result else ()
    return {length: length / self.result["train_length"] for length in lengths}

  def values(self, length: int, measure: str, part: str) -> dict[int, float]:
    """Returns {seed: value} of one cell, without seeds that have no finite value."""
    found = {}
    for score in self.result["scores"] if self.result else ():
      here = (score["length"], score["measure"], score.get("part", "mean"))
      if here == (length, measure, part) and _finite(score["value"]):
        found[score["seed"]] = float(score["value"])
    return found

  def writes(self, measure: str) -> bool:
    """Returns whether a measure is of texts that the model wrote."""
    written = (self.fact("written") or {}).get("scores", ())
    return any(measure in scores for scores in written)

  def target(self, length: int, measure: str) -> str | None:
    """Returns the fingerprint of what a cell was scored on; older runs have none."""
    if self.writes(measure):
      written = self.fact("written")
      texts = written.get("fingerprint")
      return texts and " ".join([texts, *written.get("signatures", ())])
    targets = (self.fact("targets") or {}).get(str(length)) or {}
    return targets.get("fingerprint")

  def fact(self, name: str) -> Any:
    return (self.result or {}).get(name)


@dataclasses.dataclass(frozen=True)
class Sweep:
  """Holds a plan and its runs, in the plan's order."""

  workdir: pathlib.Path
  question: str
  config: str
  command: str
  baseline: str | None
  groups: tuple[str, ...]
  runs: tuple[Run, ...]
  strangers: int = 0  # run folders that the plan does not name

  def of(self, group: str) -> list[Run]:
    return [run for run in self.runs if run.group == group]


def read(workdir: str | pathlib.Path) -> Sweep:
  """Reads a sweep's folder; raises ReportError when it has no readable sweep.json."""
  workdir = pathlib.Path(workdir)
  plan = _plan(workdir)
  rows = [row for row in plan.get("runs", ()) if isinstance(row, dict) and "id" in row]
  runs = _distinct([_read_run(_folder(workdir, row), row) for row in rows])
  groups = dict.fromkeys(
    [*map(shown, plan.get("groups", ())), *(r.group for r in runs)]
  )
  folders = {path.name for path in (workdir / "runs").glob("*") if path.is_dir()}
  baseline = plan.get("baseline")
  return Sweep(
    workdir,
    shown(plan.get("question", "")),
    shown(plan.get("config", "")),
    shown(plan.get("command", "")),
    None if baseline is None else shown(baseline),
    tuple(groups),
    tuple(runs),
    len(folders - {run.id for run in runs}),
  )


def _plan(workdir: pathlib.Path) -> dict:
  path = workdir / "sweep.json"
  if not path.is_file():
    raise ReportError(
      f"no sweep.json in {workdir}: name the folder that experiments.sweep wrote,"
      " --workdir=<folder>"
    )
  plan, trouble = _json(path)
  lists = [plan.get(name, []) for name in ("runs", "groups")]
  if not all(isinstance(each, list) for each in lists):
    trouble = trouble or "is damaged (runs and groups are no lists)"
  if trouble:
    raise ReportError(f"{path} {trouble}: run the sweep again, finished runs are kept")
  return plan


def _folder(workdir: pathlib.Path, row: dict) -> pathlib.Path:
  """Returns a run's folder, which is below that of the sweep and nowhere else."""
  name = str(row["id"])
  path = pathlib.PurePath(name)
  if path.is_absolute() or not path.parts or ".." in path.parts:
    raise ReportError(
      f"{workdir / 'sweep.json'} names a run {name!r:.80}, which is no name of a folder"
      " in runs/; copy it again"
    )
  return workdir / "runs" / name


def _read_run(folder: pathlib.Path, row: dict) -> Run:
  """Reads one run; a damaged file makes its state `damaged` and is named in `error`."""
  status, status_trouble = _json(folder / "status.json")
  config, _ = _json(folder / "config.json")
  result, trouble = _json(folder / "result.json")
  state = str(status.get("state", "not started"))
  error = shown(status.get("error") or "")
  if result and not trouble:
    trouble = _shape(result)
  if state == "finished" and damaged(folder, status, ("result.json",)):
    trouble = trouble or "is not what was written: run the sweep again"
  if trouble and (folder / "result.json").exists():
    state, error = "damaged", f"result.json {trouble}"
  elif state == "finished" and not result:
    state, error = "damaged", "status.json says finished, but there is no result.json"
  elif not status and result:
    state = "finished"
  elif status_trouble and folder.exists() and not result:
    state, error = "damaged", f"status.json {status_trouble}"
  config = completed(config) if config else {}
  return Run(
    str(row["id"]),
    shown(row.get("label", row["id"])),
    shown(row.get("group", "")),
    state,
    _whole(status.get("attempts")) or 0,
    error,
    _whole(status.get("step")),
    config,
    result if state == "finished" else None,
    _losses(folder / "metrics.jsonl"),
  )


def _json(path: pathlib.Path) -> tuple[dict, str]:
  """Returns what a file holds and "", or an empty dict and what is wrong with it."""
  try:
    content = untrusted.parsed(untrusted.content(path))
  except FileNotFoundError:
    return {}, "is missing"
  except (OSError, ValueError) as error:
    return {}, f"is damaged ({error})"
  if not isinstance(content, dict):
    return {}, "is damaged (it holds no object)"
  return content, ""


def _shape(result: dict) -> str:
  """Returns what a result lacks, so that no later line has to doubt it."""
  try:
    whole = [result["train_length"], *result["lengths"], *result["seeds"]]
    if not all(isinstance(number, int) for number in whole) or whole[0] < 1:
      return "is damaged (lengths and seeds are not whole numbers)"
    better = {measure["name"]: measure["better"] for measure in result["measures"]}
    if not better or not set(better.values()) <= {"lower", "higher"}:
      return f"is damaged (measures {better} name no lower or higher)"
    for score in result["scores"]:
      _ = score["seed"], score["length"], score["measure"], score["value"]
    for name in ("undefined", "diverged", "data", "start", "own_code", "targets"):
      dict.keys(result.get(name) or {})
    for targets in (result.get("targets") or {}).values():
      _ = str.split(targets["fingerprint"]), targets["examples"] + targets["targets"]
  except KeyError as error:
    return f"is damaged (no {error})"
  except (TypeError, ValueError, AttributeError) as error:
    return f"is damaged ({error})"
  return ""


def _losses(path: pathlib.Path) -> dict[int, dict[int, float]]:
  """Returns {seed: {step: loss}}; a line cut short by a crash is passed over."""
  losses: dict[int, dict[int, float]] = {}
  try:
    lines = untrusted.content(path).decode("utf-8", "replace").splitlines()
  except OSError:
    return losses
  for line in lines:
    try:
      row = json.loads(line)
      seed, step, loss = int(row.get("seed", 0)), int(row["step"]), float(row["loss"])
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError):
      continue
    losses.setdefault(seed, {})[step] = loss
  return losses


def _distinct(runs: list[Run]) -> list[Run]:
  """Adds the id to a label that an earlier run of its group has: no row hides another.

  The earlier one may be what all others are compared with, and keeps its name.
  """
  seen, found = set(), []
  for run in runs:
    taken = (run.group, run.label) in seen
    seen.add((run.group, run.label))
    label = f"{run.label} [{run.id}]" if taken else run.label
    found.append(dataclasses.replace(run, label=label))
  return found


def _finite(value: Any) -> bool:
  return isinstance(value, int | float) and math.isfinite(value)


def _whole(value: Any) -> int | None:
  return value if isinstance(value, int) else None
