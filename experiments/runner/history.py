"""Earlier attempts of a run: their results, checkpoints, code and folders."""

import contextlib
import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from experiments.runner import state
from experiments.runner.inputs import has_checkpoint
from experiments.setup import identity
from experiments.setup.runs import Run
from experiments.setup.validate import flatten
from transformer_jax.training.json_files import (
  FileError,
  plain,
  read_object,
  replace_file,
)


def same_code(done: Mapping[str, Any], facts: Mapping[str, Any]) -> bool:
  """Returns whether a run was trained by the present user code, or by unknown code.

  done    the result
  facts   saved with a result made now
  """
  only = {*done.get("scoring_code", ()), *facts.get("scoring_code", ())}
  now = facts.get("own_code", {})
  codes = (done.get("own_code", now), now)
  then, now = ({x: code[x] for x in code if x not in only} for code in codes)
  return then == now


def finished(path: Path, facts: Mapping[str, Any], config: ConfigDict) -> bool:
  """Returns whether a run's folder has the result of a config and the user code."""
  done = state.result(path, state.quiet)
  if not done or not same_code(done, facts):
    return False
  return not lacking(path, config, done, facts)


def lacking(
  path: Path, config: ConfigDict, done: Mapping[str, Any], facts: Mapping[str, Any]
) -> str:
  """Returns what a finished run lacks of a config: seeds or scores; "": nothing.

  done    the result
  facts   saved with a result made now
  """
  try:
    there = read_object(path / "config.json")
  except (OSError, FileError):
    return ""  # it is written again from the plan
  then, now = (plain(identity.evaluation(flat)) for flat in (there, flatten(config)))
  seeds = [seed for seed in config.seeds if seed not in there.get("seeds", ())]
  parts = [f"seeds {', '.join(map(str, seeds))}"] if seeds else []
  parts += [f"{key}={now[key]}" for key in now if then.get(key) != now[key]]
  return ", ".join([*parts, *_edited(done, facts)])


def _edited(done: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
  """Returns a clause on the files of measures that were edited since."""
  then, now = done.get("own_code", {}), facts.get("own_code", {})
  names = [x for x in facts.get("scoring_code", ()) if then.get(x, now[x]) != now[x]]
  return [f"scores by {', '.join(names)} of now"] if names else []


def refusal(
  path: Path, lacks: str, done: Mapping[str, Any], facts: Mapping[str, Any]
) -> str:
  """Returns why a finished run cannot get what it lacks, "" if it can.

  lacks   what `lacking` returns
  done    the result
  facts   saved with a result made now
  """
  if not has_checkpoint(path):
    return (
      f"{path} is finished without {lacks}, and has no checkpoint: copy its folder"
      " checkpoints/ too, or choose another --workdir"
    )
  if lacks.startswith("seeds") and done.get("seeds_apart") != facts.get("seeds_apart"):
    return (
      f"{path} is finished without {lacks}; its seeds were trained together, as before"
      " this version, and new ones would not compare: choose another --workdir"
    )
  return ""


def in_folders(workdir: Path, todo: Sequence[Run]) -> list[Run]:
  """Returns the runs with the ids by which their folders are named.

  Ids of older versions depended on seeds and on evaluation. Of several such folders of
  one training, the one that was finished with the run's evaluation is taken first.
  """
  older: dict[str, list[Path]] = {}
  for path in sorted(workdir.glob("runs/*/config.json")):
    with contextlib.suppress(OSError, FileError):
      older.setdefault(identity.run_id(read_object(path)), []).append(path.parent)

  def named(run: Run) -> Run:
    folders = [path for path in older.get(run.id, ()) if _is_id(path.name)]
    if (workdir / "runs" / run.id).exists() or not folders:
      return run
    best = min(folders, key=lambda path: not finished(path, {}, run.config))
    return dataclasses.replace(run, id=best.name)

  return [named(run) for run in todo]


def _is_id(name: str) -> bool:
  return re.fullmatch("[0-9a-f]{10}", name) is not None


def set_aside(path: Path) -> Path:
  """Renames a run's folder, so that the run restarts and nothing is lost."""
  names = (path.with_name(f"{path.name}.{n}") for n in itertools.count(1))
  aside = next(name for name in names if not name.exists())
  path.rename(aside)
  return aside


def earlier(path: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
  """Returns {"before": [facts]} where a checkpoint was made with other code.

  The patch of entry N of the list is saved as changes-N.patch.
  """
  try:
    then = read_object(path / "made_with.json")
  except (OSError, FileError):
    return {}
  if not has_checkpoint(path):
    return {}
  before = then.pop("before", [])
  before = before if isinstance(before, list) else []  # a damaged file
  if {**then, "command": ""} != {**facts, "command": ""}:
    patch = path / "changes.patch"
    if patch.is_file():
      replace_file(path / f"changes-{len(before)}.patch", patch.read_bytes())
    before = [*before, then]
  return {"before": before} if before else {}


def remember(path: Path) -> dict[Path, bytes]:
  """Returns {path: content} of the files that an attempt writes before it trains."""
  files = [path / name for name in ("made_with.json", "changes.patch", "config.json")]
  return {file: file.read_bytes() for file in files if file.is_file()}


def restore(files: Mapping[Path, bytes]) -> None:
  """Writes the files of `remember` back."""
  for file, content in files.items():
    replace_file(file, content)


def note(done: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
  """Returns a note that the run is finished, and by which code if it differs."""
  commits = [made.get("commit") for made in (done, facts)]
  code = [made.get("sources", made.get("commit")) for made in (done, facts)]
  words = "finished before"
  if code[0] != code[1]:
    then, now = (commit or "unknown" for commit in commits)
    words += f" by other code: commit {then}, now {now}"
  cores = [made.get("cores") for made in (done, facts)]
  if all(cores) and cores[0] != cores[1]:
    words += f"; with --cores={cores[0]} then, {cores[1]} now"
  if facts.get("own_code") and "own_code" not in done:
    words += f"; its code of {', '.join(facts['own_code'])} was not recorded then"
  return words
