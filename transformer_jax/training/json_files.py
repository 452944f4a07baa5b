"""Atomic JSON files: whole or absent after a crash."""

import json
import math
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformer_jax import untrusted
from transformer_jax.aside import set_aside
from transformer_jax.untrusted import shown

ABSENT = "(absent)"


class FileError(ValueError):
  """Raised if a file cannot be used; the message has its path and the remedy.

  >>> import tempfile
  >>> with tempfile.TemporaryDirectory() as folder:
  ...   path = Path(folder, "result.json")
  ...   _ = path.write_text("[]")
  ...   try:
  ...     read_object(path)
  ...   except FileError as error:
  ...     print(str(error).partition(";")[0].replace(folder, "runs/mine"))
  runs/mine/result.json is not readable JSON (it holds [], no object)
  """


def reason(error: Exception) -> str:
  """Returns the cause in a few words: "Is a directory", "Expecting value: line 1"."""
  cause = error.__cause__ or error
  return getattr(cause, "strerror", None) or str(cause)


def warn(line: str) -> None:
  """Prints one line to stderr, looked up now so that a progress bar can move aside."""
  print(shown(line), file=sys.stderr, flush=True)


def free_space(directory: str | Path) -> str:
  """Returns the space left for `directory` as text: "3.2 MiB free"."""
  try:
    return f"{shutil.disk_usage(directory).free / 2**20:,.1f} MiB free"
  except OSError as error:
    return f"free space unknown: {error.strerror}"


def plain(value: Any) -> Any:
  """Returns `value` as JSON holds it: arrays as lists, NaN and infinities as null."""
  if isinstance(value, Mapping):
    return {str(key): plain(item) for key, item in value.items()}
  if isinstance(value, (list, tuple)):
    return [plain(item) for item in value]
  if hasattr(value, "tolist"):
    return plain(value.tolist())
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value


def write_json(path: str | Path, value: Any) -> None:
  """Replaces the file atomically: a reader gets the old content or the new.

  >>> import tempfile
  >>> with tempfile.TemporaryDirectory() as folder:
  ...   path = Path(folder, "result.json")
  ...   write_json(path, {"loss": float("nan"), "steps": 3})
  ...   read_json(path)
  {'loss': None, 'steps': 3}
  """
  text = json.dumps(plain(value), indent=2, allow_nan=False) + "\n"
  replace_file(Path(path), text.encode())


def make_folder(path: Path) -> None:
  """Makes a folder and its parents; a file in its place is set aside."""
  if path.exists() and not path.is_dir():
    warn(f"{path} is no folder; kept as {set_aside(path)}")
  path.mkdir(parents=True, exist_ok=True)


def make_way(path: Path) -> None:
  """Sets a folder aside that stands in the place of a file."""
  if path.is_dir() and not path.is_symlink():
    warn(f"{path} is a folder instead of a file; kept as {set_aside(path)}")


def replace_file(path: Path, content: bytes) -> None:
  """Writes a neighbour, forces it to the disk and renames it over `path`."""
  path.parent.mkdir(parents=True, exist_ok=True)
  make_way(path)
  # Several processes, also of several machines, may write one file.
  neighbour = path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}.tmp")
  try:
    with open(neighbour, "wb") as file:
      file.write(content)
      file.flush()
      os.fsync(file.fileno())
    os.replace(neighbour, path)
  except OSError as error:
    neighbour.unlink(missing_ok=True)
    raise OSError(
      error.errno,
      f"cannot write the file ({error.strerror}; {free_space(path.parent)});"
      " what it held before is untouched",
      str(path),
    ) from error
  _flush_folder(path.parent)


def _flush_folder(folder: Path) -> None:
  """Makes the rename itself survive a power cut."""
  descriptor = os.open(folder, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def read_json(path: str | Path) -> Any:
  """Returns the content; a damaged file raises FileError naming it and the place."""
  content = untrusted.content(path)
  try:
    return json.loads(content.decode())
  except (ValueError, RecursionError) as error:
    raise _unreadable(path, error) from error


def _unreadable(path: str | Path, cause: Exception) -> FileError:
  return FileError(
    f"{path} is not readable JSON ({cause}); restore it, or delete the folder"
    f" {Path(path).parent} to start this run again"
  )


def read_object(path: str | Path) -> dict[str, Any]:
  """Returns a JSON object; FileError for anything else, OSError as it comes."""
  content = read_json(path)
  if not isinstance(content, dict):
    cause = TypeError(f"it holds {json.dumps(content)[:40]}, no object")
    raise _unreadable(path, cause) from cause
  return content


def check_same_config(
  directory: str | Path, there: Mapping[str, Any], now: Mapping[str, Any]
) -> None:
  """Raises FileError where two configs differ.

  directory   the folder of the run, for the message
  there, now  the config of the run in it, and the one that is wanted
  """
  old, new = _flat(plain(there)), _flat(plain(now))
  keys = sorted(key for key in old | new if not _same(old, new, key))
  if keys:
    lines = [f"  {k}: there {_show(old, k)}, now {_show(new, k)}" for k in keys]
    raise FileError(
      f"{directory} holds a run of another config:\n" + "\n".join(lines) + "\n"
      "Choose another --workdir, or delete the folder if that run is not needed."
    )


def _flat(config: Any, prefix: str = "") -> dict[str, Any]:
  """Joins nested keys with dots: {"model": {"width": 64}} -> {"model.width": 64}."""
  if not isinstance(config, dict) or not config:
    return {prefix[:-1]: config} if prefix else {}
  parts = [_flat(value, f"{prefix}{key}.") for key, value in config.items()]
  return {key: value for part in parts for key, value in part.items()}


def _same(old: dict, new: dict, key: str) -> bool:
  # 1 == True == 1.0 in Python, but not in a config.
  return _show(old, key) == _show(new, key)


def _show(config: dict, key: str) -> str:
  return json.dumps(config[key]) if key in config else ABSENT
