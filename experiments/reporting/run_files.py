"""Files of one run's folder, read back as values; damaged ones are named.

runs/<id>/{status,config,result}.json, metrics.jsonl and examples.npz belong to a run,
and evaluations/ has what scored it again.
"""

import dataclasses
import json
import pathlib
from collections.abc import Iterator
from typing import Any

from experiments.reporting.loaded_run import LoadedRun
from experiments.runner.state import checksum, damaged
from experiments.setup.identity import completed
from experiments.setup.matching import Matched
from experiments.setup.tuning import Tuned
from transformer_jax import untrusted
from transformer_jax.training.json_files import warn
from transformer_jax.untrusted import shown

# Entries of a result that are objects, where they are there.
MAPPINGS = (
  *("undefined", "diverged", "diverged_by", "data", "start", "own_code"),
  "targets",
)


def read_run(folder: pathlib.Path, entry: dict) -> LoadedRun:
  """Reads one run; a damaged file makes its state `damaged` and is named in `error`."""
  status, status_trouble = json_object(folder / "status.json")
  config, _ = json_object(folder / "config.json")
  result, trouble = json_object(folder / "result.json")
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
  adding = ""
  if state != "finished" and result and _extends(folder, status):
    adding, error, state = f"{state}{error and ': '}{error}", "", "finished"
  config = completed(config) if config else {}
  if adding:
    config |= _scored(result)
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
    adding=adding,
  )


def _extends(folder: pathlib.Path, status: dict) -> bool:
  """Returns whether a finished run is getting seeds or scores: its result stands."""
  earlier = status.get("extends")
  return bool(earlier) and earlier == checksum(folder / "result.json")


def _scored(result: dict) -> dict[str, Any]:
  """Returns the config keys of what a result scored; the config has what is coming."""
  lengths = [length / result["train_length"] for length in result["lengths"]]
  whole = [int(times) if times.is_integer() else times for times in lengths]
  counts = [x["examples"] for x in (result.get("targets") or {}).values()]
  examples = {"evaluate.examples": max(counts)} if counts else {}
  return {"seeds": result["seeds"], "evaluate.lengths": whole, **examples}


def _matched(entry: Any) -> Matched | None:
  return Matched.recorded(entry) if isinstance(entry, dict) else None


def evaluations(folder: pathlib.Path, run: LoadedRun) -> Iterator[LoadedRun]:
  """Yields a finished run as it was scored again, in groups of their own."""
  for path in sorted(folder.glob("evaluations/*/result.json")) if run.result else ():
    content, trouble = json_object(path)
    result = {**(run.result or {}), "written": None, **content}
    trouble = trouble or ("" if "label" in content else "is damaged (no label)")
    if trouble := trouble or _shape(result):
      warn(f"{path} {trouble} and is left out; experiments.evaluate writes it again")
      continue
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


def json_object(path: pathlib.Path) -> tuple[dict, str]:
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
    if not all(map(_sound_bounds, result["measures"])):
      return "is damaged (bounds of a measure are no two numbers)"
    if not all(map(_sound_score, result["scores"])):
      return "is damaged (a score lacks a whole number of seed or length, or a name)"
    for name in MAPPINGS:
      dict.keys(result.get(name) or {})
    for targets in (result.get("targets") or {}).values():
      _ = str.split(targets["fingerprint"]), targets["examples"] + targets["targets"]
  except KeyError as error:
    return f"is damaged (no {error})"
  except (TypeError, ValueError, AttributeError) as error:
    return f"is damaged ({error})"
  return ""


def _sound_bounds(measure: dict) -> bool:
  """Returns whether a recorded measure has a least and a largest value, or none."""
  ends = measure.get("bounds", [None, None])
  numbers = all(isinstance(end, int | float | None) for end in ends)
  return numbers and len(ends) == 2


def _sound_score(score: dict) -> bool:
  """Returns whether the place of a recorded score is known; raises KeyError."""
  numbers = score["seed"], score["length"]
  names = score["measure"], score.get("part", "mean")
  _ = score["value"]  # anything: what is no finite number counts as missing
  whole = all(isinstance(number, int) for number in numbers)
  return whole and all(isinstance(name, str) for name in names)


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


def _integer(value: Any) -> int | None:
  return value if isinstance(value, int) else None
