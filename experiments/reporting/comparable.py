"""Preconditions of a verdict: the same data, weights, own code and scored targets."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

from experiments.reporting.load import Run
from experiments.reporting.text import listed

# What changes last digits and, after long training, scores: {name: how a run has it}.
ROUNDS: dict[str, Callable[[Run], Any]] = {
  "evaluate.batch_size": lambda run: run.config.get("evaluate.batch_size"),
  "mesh": lambda run: run.fact("mesh"),
  "device": lambda run: run.fact("device"),
  "environment": lambda run: run.fact("environment"),
  "versions": lambda run: run.fact("versions"),
  "code": lambda run: run.fact("sources") or run.fact("commit"),
  "seeds trained together": lambda run: run.fact("seeds"),
}


def changed(runs: Sequence[Run]) -> str:
  """Returns what changed between finished runs that must share it, "" for nothing."""
  values: dict[str, dict[str, list[str]]] = {}
  for run in runs:
    for what, value in _inputs(run):
      values.setdefault(what, {}).setdefault(value, []).append(run.label)
  differing = {what: found for what, found in values.items() if len(found) > 1}
  return "; ".join(
    f"{what} changed between its runs ({_by_value(found)})"
    for what, found in differing.items()
  )


def _inputs(run: Run) -> Iterator[tuple[str, str]]:
  """Yields (name, fingerprint) of what a run was trained and scored with."""
  data, start = run.fact("data") or {}, run.fact("start") or {}
  task = run.config.get("task")
  named = {
    "the data": data.get("fingerprint"),
    # Variants may have tokenizers of their own; one task has one.
    f"the tokenizer of {task}": data.get("vocabulary"),
    f"the weights in {start.get('folder')}": start.get("weights"),
    **(run.fact("own_code") or {}),
  }
  yield from ((name, str(value)) for name, value in named.items() if value)


def _by_value(labels: dict[str, list[str]]) -> str:
  return ", ".join(f"{value[:8]} in {listed(who)}" for value, who in labels.items())


def targets(runs: Sequence[Run], length: int, measure: str) -> dict[str, Hashable]:
  """Returns {label: what a column was scored on}; equal values are equal targets.

  These are the recorded fingerprints. Where a run of the column has none, for it was
  made before they were recorded, they are the settings that decide what is scored.
  """
  recorded = {run.label: run.target(length, measure) for run in runs}
  if all(recorded.values()):
    return recorded
  return {run.label: _settings(run, measure) for run in runs}


def _settings(run: Run, measure: str) -> tuple[str, str]:
  """Returns the settings that decide what is scored."""
  size = "evaluate.texts" if run.writes(measure) else "evaluate.examples"
  return str(run.config.get("task")), str(run.config.get(size))


def over_lengths(runs: Sequence[Run]) -> str:
  """Returns a sentence on whether the lengths of a group, {}, share their targets."""
  recorded = [run.fact("targets") for run in runs]
  if not all(recorded):
    return (
      "In {} some runs did not record what was scored: they are compared where they"
      " have the same task and evaluate.examples."
    )
  prints = {x["fingerprint"] for targets in recorded for x in targets.values()}
  if len(prints) == 1:
    return (
      "In {} every length of every variant is scored on the same target tokens"
      " (recorded fingerprints are equal): only the context before them grows."
    )
  lengths: dict[str, set[str]] = {}
  for targets in recorded:
    for length, x in targets.items():
      lengths.setdefault(length, set()).add(x["fingerprint"])
  if all(len(found) == 1 for found in lengths.values()):
    return (
      "In {} all variants are scored on the same targets, and each length has its own:"
      " longer ones are other questions too."
    )
  return "In {} variants are scored on different targets: only equal ones are compared."


def sizes(runs: Sequence[Run]) -> str:
  """Returns how much each length was scored on, to end a sentence; "" if unknown."""
  found = {
    (x["examples"], x["targets"])
    for run in runs
    for x in (run.fact("targets") or {}).values()
  }
  if not found:
    return ""
  examples, targets = (sorted(set(column)) for column in zip(*found, strict=True))
  return (
    f"; each length is scored on {_between(examples)} examples with"
    f" {_between(targets)} target tokens"
  )


def _between(values: list[int]) -> str:
  low, high = f"{values[0]:,}", f"{values[-1]:,}"
  return low if low == high else f"{low} to {high}"


def notes(runs: Sequence[Run]) -> tuple[str, ...]:
  """Says what differs between runs and no test can see: rounding, and what follows."""
  lines = []
  for name, of in ROUNDS.items():
    had = {run.label: of(run) for run in runs if of(run) is not None}
    values: dict[str, list[str]] = {}
    for label, value in _differing(had).items():
      values.setdefault(_shown(value), []).append(label)
    if len(values) > 1:
      each = "; ".join(f"{value}: {listed(labels)}" for value, labels in values.items())
      lines.append(f"{name} ({each})")
  if not lines:
    return ()
  return (
    f"Not the same in all runs: {', '.join(lines)}. Each of these changes last digits,"
    " and in long training that may change scores.",
  )


def _differing(had: dict[str, Any]) -> dict[str, Any]:
  """Returns the values, of dicts only the keys in which they differ."""
  if not had or not all(isinstance(value, dict) for value in had.values()):
    return had
  keys = dict.fromkeys(key for value in had.values() for key in value)
  apart = [key for key in keys if len({str(x.get(key)) for x in had.values()}) > 1]
  return {label: {key: x.get(key) for key in apart} for label, x in had.items()}


def _shown(value: Any) -> str:
  if isinstance(value, dict):
    return " ".join(f"{key} {x}" for key, x in value.items())
  return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
