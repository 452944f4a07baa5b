"""Earlier attempts of a run: their results, checkpoints and code."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.runner import state
from experiments.runner.inputs import has_checkpoint
from transformer_jax.training.json_files import FileError, read_object, replace_file


def same_code(done: Mapping[str, Any], facts: Mapping[str, Any]) -> bool:
  """Returns whether a result was made by the present user code, or by unknown code.

  done    the result
  facts   saved with a result made now
  """
  now = facts.get("own_code", {})
  return done.get("own_code", now) == now


def finished(path: Path, facts: Mapping[str, Any]) -> bool:
  """Returns whether a run's folder has a result of the present user code."""
  done = state.result(path, state.quiet)
  return bool(done) and same_code(done, facts)


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
