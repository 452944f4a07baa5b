"""State of a run, read from its folder; a damaged file gives a warning, no error."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import xxhash

from transformer_jax import untrusted
from transformer_jax.evaluation.example_scores import FILE
from transformer_jax.training.json_files import FileError, read_object, reason, warn

CHECKED = (
  *("result.json", "metrics.jsonl", "translations.json", "labels.json"),
  *("rollouts.json", "control.json"),
  FILE,
  *("tokenizer/tokenizer.json", "tokenizer/tokenizer.model"),
)


def quiet(line: str) -> None:
  """Prints nothing, where a caller has printed the warning."""


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
  """Returns the files of a finished run that differ from their checksums.

  path    folder of the run
  now     its status.json; older versions wrote no checksums
  names   the files to compare; status.json may list others
  """
  sums = now.get("checksums")
  sums = sums if isinstance(sums, dict) else {}
  names = [name for name in names if name in sums]
  return [name for name in names if sums[name] != checksum(path / name)]


def checksums(path: Path) -> dict[str, str]:
  """Returns {name: checksum} of the files that are there, for `damaged`."""
  sums = {name: checksum(path / name) for name in CHECKED}
  return {name: digest for name, digest in sums.items() if digest}


def checksum(file: Path) -> str | None:
  """Returns a fast hash of a file's content; None for a file that cannot be read."""
  try:
    return xxhash.xxh3_128_hexdigest(untrusted.content(file))
  except OSError:
    return None


def _read(path: Path, say: Callable[[str], None]) -> dict[str, Any]:
  """Returns a file's object, {} where it is missing or damaged: the run resumes."""
  try:
    return read_object(path)
  except FileNotFoundError:
    return {}
  except (FileError, OSError) as error:
    say(f"{path} is not readable ({reason(error)}); going on from the last checkpoint")
    return {}


def kills(path: Path) -> int:
  """Returns how often a run's process was killed since its last recorded step."""
  before = status(path, say=quiet)
  return count(before, "kills") + (before.get("state") == "running")


def count(now: dict[str, Any], name: str) -> int:
  """Returns a number of status.json, 0 where there is none."""
  value = now.get(name)
  return value if isinstance(value, int) else 0
