"""Fingerprints of what a run was begun with: a checkpoint continues on nothing else."""

from collections.abc import Mapping
from pathlib import Path

from transformer_jax.training.json_files import (
  FileError,
  read_object,
  reason,
  warn,
  write_json,
)

FILE = "inputs.json"
DATA, CODE = "data", "own code"  # the kinds of fingerprints


class ChangedError(FileError):
  """Other data, weights or code than a checkpoint was trained with."""


def check(folder: Path, now: Mapping[str, str], what: str, copies: str = "") -> None:
  """Records fingerprints by name, or compares them where a checkpoint goes on.

  what     the kind of all of them, as in "data"
  copies   a folder of the run that has the contents of then

  Raises ChangedError, naming what changed, before anything is overwritten.
  """
  recorded = _read(folder / FILE)
  then = fingerprints(folder, what)
  if has_checkpoint(folder):
    if then is None and now:
      warn(f"{folder} goes on as it is: what {what} it was begun with is not recorded")
    if then not in (None, dict(now)):
      raise ChangedError(_refusal(folder, then, now, copies))
  if then != dict(now):
    write_json(folder / FILE, {**recorded, what: dict(now)})


def fingerprints(folder: Path, what: str) -> dict[str, str] | None:
  """Returns the recorded fingerprints of one kind, None where there are none."""
  then = _read(folder / FILE).get(what)
  return then if isinstance(then, dict) else None


def _read(path: Path) -> dict:
  """Returns what was recorded; a damaged record costs the comparison, no more."""
  try:
    return read_object(path)
  except FileNotFoundError:
    return {}
  except (FileError, OSError) as error:
    warn(f"{path} is not readable ({reason(error)}); written again")
    return {}


def has_checkpoint(folder: Path) -> bool:
  return any(path.name.isdigit() for path in (folder / "checkpoints").glob("*"))


def _refusal(folder: Path, then: Mapping, now: Mapping, copies: str) -> str:
  names = [n for n in {**then, **now} if then.get(n) != now.get(n)]
  changes = ", ".join(
    f"{name} (then {_short(then.get(name))}, now {_short(now.get(name))})"
    for name in names
  )
  where = f" from {folder / copies}" if copies else ""
  return (
    f"{folder} holds a checkpoint that was trained with other contents of {changes};"
    f" restore them{where} to continue, or delete that folder to train from the start"
  )


def _short(fingerprint: str | None) -> str:
  return str(fingerprint)[:8] if fingerprint else "none"
