"""Ranges of numeric arguments by name, for all registered classes."""

from typing import Any

# Minimum by argument name; a class may raise its own errors for more.
LEAST = {
  "max_positions": 1,
  "max_length": 1,
  "height": 1,
  "channels": 1,
  "step": 1,
  "trained": 1,
  "features": 1,
  "tokens": 1,
}
LEAST |= {"max_distance": 0, "width": 0, "block": 0, "epsilon": 0, "limit": 0}
ABOVE_ZERO = {"base", "threshold"}


def allowed(name: str, value: Any) -> str:
  """Returns the allowed range of a number that is out of range, else ""."""
  if not isinstance(value, (int, float)):
    return ""
  if name in ABOVE_ZERO and not value > 0:
    return "a number above 0"
  least = LEAST.get(name)
  return f"{least} or more" if least is not None and not value >= least else ""
