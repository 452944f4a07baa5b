"""Folder of a sweep, read back as values; unreadable files are named.

<workdir>/sweep.json is the plan; runs/<id>/{status,config,result}.json, metrics.jsonl
and examples.npz belong to each run, and evaluations/ has what scored it again.
"""

import dataclasses
import functools
import json
import math
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from experiments.runner.state import damaged
from experiments.setup.identity import completed
from experiments.setup.matching import Matched
from experiments.setup.primary import DEFAULT, Comparisons, from_json
from experiments.setup.tuning import Tuned
from experiments.setup.validate import ConfigError
from transformer_jax import untrusted
from transformer_jax.evaluation import example_scores
from transformer_jax.evaluation.example_scores import ExampleScores
from transformer_jax.training.json_files import warn
from transformer_jax.untrusted import shown


class ReportError(ValueError):
  """A folder without a readable sweep.json; the message says what to do next.

  >>> try:
  ...   read("no/such/sweep")
  ... except ReportError as error:
  ...   print(str(error).partition(":")[0])
  no sweep.json in no/such/sweep
  """


@dataclasses.dataclass(frozen=True)
class LoadedRun:
  """One run of a sweep's folder: its state always, its scores once it finished.

  state     finished, running, failed, interrupted, damaged, "not started"
  step      last recorded training step; None: unknown
  config    flat config, {} where it cannot be read
  result    result.json of a finished run, else None
  losses    {seed: {step: training loss}}
  matched   what was solved to match its cost to the baseline's; None: nothing
  tuned     its search on the validation split; None: none
  ladder    name of its ladder of sizes; "": it is on none
  folder    of the run; None: it is in no folder
  again_of  group of the run where these are not its own scores but those of
            experiments.evaluate

  >>> result = {"train_length": 16, "lengths": [16, 64]}
  >>> run = LoadedRun("a1", "rope", "copy", "finished", result=result)
  >>> run.times
  {16: 1.0, 64: 4.0}
  """

  id: str
  label: str
  group: str
  state: str
  attempts: int = 0
  error: str = ""
  step: int | None = None
  config: dict[str, Any] = dataclasses.field(default_factory=dict)
  result: dict[str, Any] | None = None
  losses: dict[int, dict[int, float]] = dataclasses.field(default_factory=dict)
  matched: Matched | None = None
  tuned: Tuned | None = None
  ladder: str = ""
  folder: pathlib.Path | None = None

  @functools.cached_property
  def examples(self) -> ExampleScores | None:
    """Scores of single examples; None without a result, and in older runs."""
    if self.result is None or self.folder is None:
      return None
    return example_scores.read(self.folder)

  again_of: str = ""

  @property
  def times(self) -> dict[int, float]:
    """Maps each scored length to how often the training length fits into it."""
    if self.result is None:
      return {}
    train = self.result["train_length"]
    return {length: length / train for length in self.result["lengths"]}

  def values(self, length: int, measure: str, part: str) -> dict[int, float]:
    """Returns {seed: value} of one cell, without seeds that have no finite value."""
    values = {}
    for score in self.fact("scores") or ():
      cell = (score["length"], score["measure"], score.get("part", "mean"))
      if cell == (length, measure, part) and finite(score["value"]):
        values[score["seed"]] = float(score["value"])
    return values

  def writes(self, measure: str) -> bool:
    """Returns whether a measure scores generated texts."""
    written = (self.fact("written") or {}).get("scores", ())
    return any(measure in scores for scores in written)

  def target(self, length: int, measure: str) -> str | None:
    """Returns the fingerprint of a cell's scored targets; None in older runs."""
    if self.writes(measure):
      written = self.fact("written")
      texts = written.get("fingerprint")
      return texts and " ".join([texts, *written.get("signatures", ())])
    targets = (self.fact("targets") or {}).get(str(length)) or {}
    return targets.get("fingerprint")

  def fact(self, name: str) -> Any:
    """Returns an entry of result.json, or None."""
    return (self.result or {}).get(name)


@dataclasses.dataclass(frozen=True)
class Sweep:
  """A plan and its runs, in the plan's order.

  config      config file of the plan
  command     shell command that repeats the sweep
  baseline    label that others are compared with
  unplanned   number of run folders that the plan does not name
  comparisons those that have verdicts

  >>> copying = LoadedRun("a1", "rope", "copy", "finished")
  >>> reading = LoadedRun("b2", "rope", "text", "failed")
  >>> groups, runs = ("copy", "text"), (copying, reading)
  >>> sweep = Sweep(pathlib.Path("runs"), "Why?", "", "", "rope", groups, runs)
  >>> [run.state for run in sweep.of("text")]
  ['failed']
  """

  workdir: pathlib.Path
  question: str
  config: str
  command: str
  baseline: str | None
  groups: tuple[str, ...]
  runs: tuple[LoadedRun, ...]
  unplanned: int = 0
  comparisons: Comparisons = DEFAULT

  def of(self, group: str) -> list[LoadedRun]:
    """Returns the runs of a group."""
    return [run for run in self.runs if run.group == group]


def read(workdir: str | os.PathLike[str]) -> Sweep:
  """Reads a sweep's folder; raises ReportError when it has no readable sweep.json."""
  root = pathlib.Path(workdir)
  plan = _plan(root)
  planned = [x for x in plan.get("runs", ()) if isinstance(x, dict) and "id" in x]
  runs = _distinct([_read_run(_folder(root, entry), entry) for entry in planned])
  groups = dict.fromkeys(
    [*map(shown, plan.get("groups", ())), *(r.group for r in runs)]
  )
  again = [x for run in runs for x in _evaluations(root / "runs" / run.id, run)]
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
  plan, trouble = _json(path)
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


def _read_run(folder: pathlib.Path, entry: dict) -> LoadedRun:
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
  return LoadedRun(
    id=str(entry["id"]),
    label=shown(entry.get("label", entry["id"])),
    group=shown(entry.get("group", "")),
    state=state,
    attempts=_integer(status.get("attempts")) or 0,
    error=error,
    step=_integer(status.get("step")),
    config=config,
    result=result if state == "finished" else None,
    losses=_losses(folder / "metrics.jsonl"),
    matched=_matched(entry.get("matched")),
    tuned=Tuned.recorded(entry.get("tuned")),
    ladder=shown(str(entry.get("ladder", ""))),
    folder=folder,
  )


def _matched(entry: Any) -> Matched | None:
  return Matched.recorded(entry) if isinstance(entry, dict) else None


def _evaluations(folder: pathlib.Path, run: LoadedRun) -> Iterator[LoadedRun]:
  """Yields a finished run as it was scored again, in groups of their own."""
  for path in sorted(folder.glob("evaluations/*/result.json")) if run.result else ():
    content, trouble = _json(path)
    result = {**(run.result or {}), **content}
    trouble = trouble or ("" if "label" in content else "is damaged (no label)")
    if trouble := trouble or _shape(result):
      warn(f"{path} {trouble} and is left out; experiments.evaluate writes it again")
      continue
    result.pop("written", None)  # generated texts are those of the run
    yield dataclasses.replace(
      run,
      group=f"{run.group} scored on {shown(content['label'])}",
      config=run.config | _settings(content.get("scoring")),
      result=result,
      folder=path.parent,
      again_of=run.group,
    )


def _settings(scoring: Any) -> dict[str, Any]:
  """Returns the config keys that an evaluation replaced."""
  scoring = scoring if isinstance(scoring, dict) else {}
  keys = {name: f"evaluate.{name}" for name in ("lengths", "examples")}
  keys["task"] = "task"
  return {key: scoring[name] for name, key in keys.items() if scoring.get(name)}


def _with_evaluations(
  groups: Iterable[str], again: Sequence[LoadedRun]
) -> dict[str, None]:
  """Returns the groups, each with those of its runs that were scored again."""
  return {
    name: None
    for group in groups
    for name in (group, *sorted({x.group for x in again if x.again_of == group}))
  }


def _json(path: pathlib.Path) -> tuple[dict, str]:
  """Returns the object in a file and "", or {} and the reason for it."""
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
  """Returns the first fault in the structure of a result, "" for none."""
  try:
    numbers = [result["train_length"], *result["lengths"], *result["seeds"]]
    if not all(isinstance(number, int) for number in numbers) or numbers[0] < 1:
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
  """Returns {seed: {step: loss}}; skips a line that a crash cut short."""
  losses: dict[int, dict[int, float]] = {}
  try:
    lines = untrusted.content(path).decode("utf-8", "replace").splitlines()
  except OSError:
    return losses
  for line in lines:
    try:
      record = json.loads(line)
      seed, step = int(record.get("seed", 0)), int(record["step"])
      loss = float(record["loss"])
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError):
      continue
    losses.setdefault(seed, {})[step] = loss
  return losses


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


def finite(value: Any) -> bool:
  """Returns whether a value of a result is a finite number."""
  return isinstance(value, int | float) and math.isfinite(value)


def _integer(value: Any) -> int | None:
  return value if isinstance(value, int) else None
