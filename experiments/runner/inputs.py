"""Fingerprints of a run's inputs: a checkpoint continues on equal inputs only."""

from collections.abc import Collection, Mapping
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
  """Inputs differ from those that a checkpoint was trained with.

  >>> import tempfile
  >>> with tempfile.TemporaryDirectory() as folder:
  ...   check(Path(folder), {"train.txt": "1a2b"}, DATA)
  ...   Path(folder, "checkpoints", "100").mkdir(parents=True)
  ...   try:
  ...     check(Path(folder), {"train.txt": "9f9f"}, DATA)
  ...   except ChangedError as error:
  ...     print(str(error).partition(" of ")[2].partition(";")[0])
  train.txt (then 1a2b, now 9f9f)
  """


def check(
  folder: Path,
  now: Mapping[str, str],
  kind: str,
  copies: str = "",
  free: Collection[str] = (),
) -> None:
  """Records fingerprints, or compares them where the run has a checkpoint.

  folder   of the run
  now      {name: fingerprint} of the present inputs
  kind     of the inputs: DATA or CODE
  copies   subfolder of the run with the inputs as they were; "": none
  free     names that no longer count; older versions recorded some

  Raises ChangedError with the names that differ, before anything is overwritten.
  """
  recorded = _read(folder / FILE)
  then = fingerprints(folder, kind)
  if then is not None:
    then = {name: x for name, x in then.items() if name not in free}
  if has_checkpoint(folder):
    if then is None and now:
      warn(f"{folder} continues unchecked: its checkpoint's {kind} is not recorded")
    if then is not None and then != dict(now):
      raise ChangedError(_refusal(folder, then, now, copies))
  if then != dict(now):
    write_json(folder / FILE, {**recorded, kind: dict(now)})


def fingerprints(folder: Path, kind: str) -> dict[str, str] | None:
  """Returns {name: recorded fingerprint} of one kind, or None."""
  then = _read(folder / FILE).get(kind)
  return then if isinstance(then, dict) else None


def _read(path: Path) -> dict:
  """Returns the record, {} where it is missing or damaged."""
  try:
    return read_object(path)
  except FileNotFoundError:
    return {}
  except (FileError, OSError) as error:
    warn(f"{path} is not readable ({reason(error)}); written again")
    return {}


def has_checkpoint(folder: Path) -> bool:
  """Returns whether a run's folder has a checkpoint, intact or not."""
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
