"""Levels that scores are read against: chance, and the best possible value."""

from collections.abc import Sequence

from experiments.reporting import limits
from experiments.reporting.findings import Comparison
from experiments.reporting.text import listed, multiple

CHANCE, BEST = "chance", "best possible"
Levels = dict[str, dict[int, float]]  # by name and length


def levels(compared: Sequence[Comparison]) -> Levels:
  """Returns the known levels of a group's scores by one measure.

  Chance at a length is left out where the runs recorded several values.
  """
  chance: dict[int, set[float]] = {}
  best: dict[int, float] = {}
  for c in compared:
    if c.chance is not None:
      chance.setdefault(c.length, set()).add(c.chance)
    if (value := limits.best(c.bounds, c.better)) is not None:
      best[c.length] = value
  agreed = {n: min(values) for n, values in chance.items() if len(values) == 1}
  return {name: level for name, level in ((CHANCE, agreed), (BEST, best)) if level}


def sentence(compared: Sequence[Comparison]) -> str:
  """Returns "Chance is 0.0625 and the best possible value is 1.", "" if unknown.

  Lengths are named where the level depends on them.
  """
  names = {CHANCE: "chance", BEST: "the best possible value"}
  times = {c.length: multiple(c.times) for c in compared}
  parts = []
  for name, by_length in levels(compared).items():
    at: dict[str, list[str]] = {}
    for length, value in sorted(by_length.items()):
      at.setdefault(f"{value:.3g}", []).append(times[length])
    one = len(at) == 1 and len(by_length) == len(times)
    values = [x if one else f"{x} at {listed(where)}" for x, where in at.items()]
    parts.append(f"{names[name]} is {listed(values)}")
  text = " and ".join(parts)
  return text[:1].upper() + text[1:] + "." if text else ""
