"""Goodput of a run: the share of its wall time in training steps that counted.

attempts.json of a run's folder has an entry for each attempt, written while it trains,
so that the time of a killed one is known too:

began, host, pid       when (seconds since 1970) and where
wall                   seconds until the last writing
seconds                by phase: prepare, compile, restore, checkpoint, evaluate, ...
trained                {block, from, to, seconds} of the steps of each block of seeds

An attempt that resumes before the last step of an earlier one repeats steps: those of
the earlier one are lost.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformer_jax.training.json_files import FileError, read_object

FILE = "attempts.json"
STARTING = ("prepare", "compile", "restore")  # phases before the first new step
# Phases that are named in the record; what no phase explains is `other`.
PHASES = ("prepare", "compile", "checkpoint", "data", "evaluate")


def recorded(folder: Path) -> list[dict[str, Any]]:
  """Returns the entries of attempts.json; [] for a run of an older version."""
  try:
    entries = read_object(folder / FILE).get("attempts")
  except (OSError, FileError):
    return []
  entries = entries if isinstance(entries, list) else []
  return [entry for entry in entries if _is_sound(entry)]


def _is_sound(entry: Any) -> bool:
  """Returns whether an entry has the values that `summary` and progress read."""
  try:
    numbers = [entry["began"], entry["wall"], *entry["seconds"].values()]
    for part in entry["trained"]:
      numbers += [part["from"], part["to"], part["seconds"]]
      _ = part["block"] + ""
  except (KeyError, TypeError, AttributeError):
    return False
  return all(isinstance(number, int | float) for number in numbers)


def summary(attempts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """Returns the goodput of a run, from the entries of all its attempts.

  Returns {share, wall_s, attempts, seconds}: `seconds` divides the wall time into
  steps that counted, steps that were lost, restarts (all that precedes the first new
  step of a second or later attempt), the phases of the first start, and other.

  >>> seconds = {"compile": 2.0, "evaluate": 1.0}
  >>> steps = {"block": "", "from": 0, "to": 100, "seconds": 5.0}
  >>> summary([{"wall": 10.0, "seconds": seconds, "trained": [steps]}])["share"]
  0.5
  """
  steps, lost = _useful(attempts)
  seconds = {"steps": steps, "lost": lost, "restart": 0.0, **dict.fromkeys(PHASES, 0.0)}
  for place, attempt in enumerate(attempts):
    for name, value in attempt["seconds"].items():
      if name in STARTING and place:
        name = "restart"
      elif name == "restore":  # nothing was there
        name = "prepare"
      seconds[name] = seconds.get(name, 0.0) + value
  wall = sum(attempt["wall"] for attempt in attempts)
  seconds["other"] = max(0.0, wall - sum(seconds.values()))
  return {
    "share": steps / wall if wall else 0.0,
    "wall_s": round(wall, 3),
    "attempts": len(attempts),
    "seconds": {name: round(value, 3) for name, value in seconds.items()},
  }


def _useful(attempts: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
  """Returns the seconds of the steps that were kept, and of those trained again.

  Within a part every step takes the same time.
  """
  kept: dict[str, list[dict[str, Any]]] = {}
  lost = 0.0
  for attempt in attempts:
    for part in attempt["trained"]:
      earlier = kept.setdefault(part["block"], [])
      for old in earlier:
        end = max(old["from"], min(old["to"], part["from"]))
        if end < old["to"]:
          share = (old["to"] - end) / (old["to"] - old["from"])
          lost += share * old["seconds"]
          old |= {"to": end, "seconds": (1 - share) * old["seconds"]}
      earlier.append(dict(part))
  return sum(part["seconds"] for parts in kept.values() for part in parts), lost
