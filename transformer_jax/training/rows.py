"""Lines of metrics.jsonl: JSON objects with a step, a seed and metrics."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from transformer_jax.training.json_files import plain, warn

NOT_FINITE = "not_finite"
WORDS = {"nan", "inf", "-inf"}


def read(path: str | Path) -> list[dict[str, Any]]:
  """Returns the rows; a half-written last line is left out, NaN is a float again."""
  content, found = Path(path).read_bytes(), []
  for number, row in enumerate(parsed(content)):
    if row is None:
      line = content.split(b"\n")[number]
      warn(f"{path}:{number + 1} is not a row and is left out: {line[:60]!r}")
    else:
      found.append(row)
  return found


def parsed(content: bytes) -> Iterator[dict[str, Any] | None]:
  """Yields the row of each line, None for a damaged one."""
  *lines, _ = content.split(b"\n")  # after the last newline: half a line
  for line in lines:
    try:
      row = json.loads(line)
    except (ValueError, RecursionError):
      row = None
    yield _restored(row) if _is_row(row) else None


def _is_row(row: Any) -> bool:
  if not isinstance(row, dict):
    return False
  counts, words = (row.get("step"), row.get("seed", 0)), row.get(NOT_FINITE, {})
  whole = all(isinstance(n, int) and not isinstance(n, bool) for n in counts)
  return whole and isinstance(words, dict) and {*map(str, words.values())} <= WORDS


def whole(
  at: tuple[int, int], row: dict[str, Any] | None, copy: dict[str, float] | None
) -> dict[str, Any] | None:
  """Returns the row if its copy agrees with it, else the copy; None without both."""
  place = dict(zip(("step", "seed"), at, strict=True))
  numbers = {k: v for k, v in (row or {}).items() if is_number(v) and k not in place}
  if not copy or row and len(copy) < len(numbers):
    return row
  same = numbers.keys() == copy.keys() and _equal(numbers, copy)
  return row if same else place | copy


def _equal(numbers: dict[str, float], copy: dict[str, float]) -> bool:
  """Returns whether they are the same float32s; one NaN is like another."""
  with np.errstate(over="ignore"):
    ours = np.array([numbers[name] for name in copy], np.float32)
    theirs = np.array([copy[name] for name in copy], np.float32)
  return np.array_equal(ours, theirs, equal_nan=True)


def _restored(row: dict[str, Any]) -> dict[str, Any]:
  words = row.get(NOT_FINITE, {})
  numbers = {name: float(word) for name, word in words.items()}
  return {name: x for name, x in row.items() if name != NOT_FINITE} | numbers


def line(row: dict[str, Any]) -> bytes:
  """Returns one line of valid JSON: NaN is null, and a note has the original word."""
  words = {k: str(v) for k, v in row.items() if is_number(v) and not math.isfinite(v)}
  note = {NOT_FINITE: words} if words else {}
  return json.dumps(plain(row) | note, allow_nan=False).encode() + b"\n"


def is_number(value: Any) -> bool:
  return isinstance(value, (int, float)) and not isinstance(value, bool)
