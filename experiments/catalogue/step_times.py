"""Recorded time of a training step with each encoding and variant, for the pages."""

import functools
import json
import statistics
from pathlib import Path
from typing import Any

RAW = Path(__file__).parents[2] / "docs" / "results" / "benchmarks.json"
BUSY = 0.2  # cores that other programs kept busy, above which a reader should know
PLAIN = "none multihead"  # an encoding and a variant


def factor(position: str, attention: str) -> str:
  """Returns a step's time over a plain one's, measured in turns, as a cell.

  A dash stands where it was not measured.

  >>> factor("none", "multihead")
  '1'
  """
  name = f"{position} {attention}"
  if name == PLAIN:
    return "1"
  for group in _recorded().values():
    if name in group["times"]:
      pairs = zip(group["times"][name], group["times"][PLAIN], strict=True)
      return f"{statistics.median(a / b for a, b in pairs):.2f}"
  return "–"


def measured_at() -> str:
  """Returns device, dates and commits of the factors."""
  groups = [*_recorded().values()]
  # After a plus stand uncommitted changes: here the raw figures themselves.
  commits = sorted({group["commit"].partition("+")[0] for group in groups})
  places = sorted({f"{group['device']}, {group['date']}" for group in groups})
  busy = max((group["busy"] or 0.0 for group in groups), default=0.0)
  others = " while other work of low priority ran" * (busy > BUSY)
  return f"{'; '.join(places)}, commits {', '.join(commits)}{others}"


@functools.cache
def _recorded() -> dict[str, Any]:
  """Returns the measured groups by name."""
  return json.loads(RAW.read_text(encoding="utf-8"))["sections"].get("factors", {})
