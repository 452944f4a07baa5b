"""State of a run, read from the files of its folder; damage is said, never fatal."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import xxhash

from transformer_jax import untrusted
from transformer_jax.training.json_files import FileError, read_object, reason, warn

CHECKED = ("result.json", "metrics.jsonl", "translations.json", "labels.json")
CHECKED += ("tokenizer/tokenizer.json", "tokenizer/tokenizer.model")


def quiet(line: str) -> None:
  """Says nothing: somebody else has said it."""


def status(path: Path, say: Callable[[str], None] = warn) -> dict[str, Any]:
  """Returns status.json of a run's folder; {} before the first attempt."""
  return _read(path / "status.json", say)


def result(path: Path, say: Callable[[str], None] = warn) -> dict[str, Any]:
  """Returns result.json of a finished run, else {}."""
  now = status(path, say)
  if now.get("state") != "finished":
    return {}
  if damaged(path, now, ("result.json",)):
    say(f"{path / 'result.json'} is not what was written; it is made again")
    return {}
  return _read(path / "result.json", say)


def damaged(
  path: Path, now: dict[str, Any], names: Sequence[str] = CHECKED
) -> list[str]:
  """Returns the files of a finished run that are not what was written.

  now     its status.json, whose checksums older versions did not write
  names   the files that are looked at; others of status.json are none of a run's
  """
  sums = now.get("checksums")
  sums = sums if isinstance(sums, dict) else {}
  names = [name for name in names if name in sums]
  return [name for name in names if sums[name] != checksum(path / name)]


def checksums(path: Path) -> dict[str, str]:
  """Returns what `damaged` compares with."""
  sums = {name: checksum(path / name) for name in CHECKED}
  return {name: found for name, found in sums.items() if found}


def checksum(file: Path) -> str | None:
  try:
    return xxhash.xxh3_128_hexdigest(untrusted.content(file))
  except OSError:
    return None


def _read(path: Path, say: Callable[[str], None]) -> dict[str, Any]:
  """A damaged status or result costs another attempt, which resumes; no more."""
  try:
    return read_object(path)
  except FileNotFoundError:
    return {}
  except (FileError, OSError) as error:
    say(f"{path} is not readable ({reason(error)}); going on from the last checkpoint")
    return {}


def kills(path: Path) -> int:
  """Returns how often its process was killed since the run last got further."""
  before = status(path, say=quiet)
  return count(before, "kills") + (before.get("state") == "running")


def count(now: dict[str, Any], name: str) -> int:
  """Returns a number of status.json, 0 where there is none."""
  value = now.get(name)
  return value if isinstance(value, int) else 0
