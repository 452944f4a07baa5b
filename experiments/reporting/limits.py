"""Limits of scores: bounds of a measure, its best value, chance, the finest step."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from experiments.reporting.loaded_run import LoadedRun, finite
from experiments.reporting.statistics import UNBOUNDED, Bounds

SHARE: Bounds = (0.0, 1.0)
# Of results that did not record them.
BOUNDS: Mapping[str, Bounds] = {
  "bits_per_byte": (0.0, None),
  "accuracy": SHARE,
  "exact_match": SHARE,
  "bleu": (0.0, 100.0),
  "chrf": (0.0, 100.0),
  "valid": SHARE,
  **dict.fromkeys(("rougeL", "rouge1", "rouge2"), (0.0, 100.0)),
}


def bounds(runs: Iterable[LoadedRun], measure: str) -> Bounds:
  """Returns the least and the largest value of a measure; None: there is none."""
  for run in runs:
    for entry in run.fact("measures") or ():
      if entry["name"] == measure and "bounds" in entry:
        low, high = entry["bounds"]
        return low, high
  return BOUNDS.get(measure, UNBOUNDED)


def resolution(runs: Sequence[LoadedRun], length: int, measure: str) -> float:
  """Returns the standard error below which no spread over seeds is believed.

  For a share of N examples it is one of them: with all or none right in every seed the
  seeds say nothing about the next example. 0: of other measures, and of results that
  did not record their examples.
  """
  if bounds(runs, measure) != SHARE:
    return 0.0
  counts = [n for run in runs if (n := examples(run, length, measure))]
  return 1 / min(counts) if counts else 0.0


def examples(run: LoadedRun, length: int, measure: str) -> int | None:
  """Returns the number of scored examples of a cell; None: not recorded."""
  if run.writes(measure):
    return (run.fact("written") or {}).get("texts")
  targets = (run.fact("targets") or {}).get(str(length)) or {}
  return targets.get("examples")


def chance(run: LoadedRun, length: int, measure: str) -> float | None:
  """Returns the score of guessing, as the run recorded it; None: unknown."""
  by_length = (run.fact("chance") or {}).get(measure)
  value = by_length.get(str(length)) if isinstance(by_length, dict) else None
  if finite(value):
    return value
  guess: Any = (run.fact("data") or {}).get("guess")  # the most common label
  value = guess.get(measure) if isinstance(guess, dict) else None
  return value if finite(value) else None


def best(limits: Bounds, better: str) -> float | None:
  """Returns the best possible value, if it can be reached; None: unknown.

  A loss of zero is a bound that no model of text reaches.
  """
  return limits[1] if better == "higher" else None
