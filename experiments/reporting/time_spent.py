"""Goodput of runs in words: how much of their wall time was steps that counted."""

from collections.abc import Sequence
from typing import Any

from experiments.reporting.loaded_run import LoadedRun, finite
from experiments.reporting.text import listed
from transformer_jax.training.progress import duration

LEAST = 0.01  # share of the wall time from which a part is named
# Parts of the record besides the steps that counted, as they are called here.
PARTS = {
  "lost": "steps that were trained again",
  "restart": "restarts",
  "compile": "compiling",
  "prepare": "preparing",
  "checkpoint": "checkpoints",
  "data": "waiting for data",
  "evaluate": "evaluation",
  "other": "other",
}


def recorded(run: LoadedRun) -> dict[str, Any] | None:
  """Returns a run's goodput; None in older and damaged records."""
  found = run.fact("goodput")
  if not isinstance(found, dict) or not isinstance(found.get("seconds"), dict):
    return None
  numbers = [found.get(name) for name in ("share", "wall_s", "attempts")]
  numbers += found["seconds"].values()
  return found if all(map(finite, numbers)) and found["wall_s"] > 0 else None


def time_spent(run: LoadedRun) -> str:
  """Returns a sentence on the time of a run, "" where it was not recorded."""
  found = recorded(run)
  if found is None:
    return ""
  wall = found["wall_s"]
  shares = {name: found["seconds"].get(key, 0.0) / wall for key, name in PARTS.items()}
  parts = sorted((x for x in shares.items() if x[1] >= LEAST), key=lambda x: -x[1])
  rest = [f"{name} {share:.0%}" for name, share in parts]
  attempts = counted(found["attempts"], "attempt")
  sentence = f"Goodput {found['share']:.0%} of {duration(wall)} in {attempts}"
  return f"{sentence}; {listed(rest, most=len(rest))}." if rest else f"{sentence}."


def goodput_of_all(runs: Sequence[LoadedRun]) -> str:
  """Returns a sentence on the goodput of finished runs, "" without any record."""
  records = [found for run in runs if (found := recorded(run))]
  if not records:
    return ""
  wall = sum(found["wall_s"] for found in records)
  steps = sum(found["share"] * found["wall_s"] for found in records)
  lost = sum(found["seconds"].get("lost", 0.0) for found in records)
  attempts = sum(found["attempts"] for found in records)
  again = (
    f", of which {lost / wall:.1%} went into steps that were trained again"
    if lost
    else ""
  )
  return (
    "Goodput is the share of a run's wall time, over all its attempts, in training"
    f" steps that counted: {steps / wall:.0%} of {duration(wall)},"
    f" over {counted(len(records), 'run')} and {counted(attempts, 'attempt')}{again}."
    " What the rest was spent on is on the card of each run."
  )


def counted(number: int, name: str) -> str:
  """Returns "1 run" or "2 runs"."""
  return f"{number} {name}{'s' * (number != 1)}"
