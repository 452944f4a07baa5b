"""Preconditions of a verdict: equal data, weights, code, cores, scored targets."""

import re
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

from experiments.reporting.loaded_run import LoadedRun
from experiments.reporting.text import listed
from transformer_jax.mesh_shape import MeshShape

# Settings that change last digits and, after long training, scores.
ROUNDING: dict[str, Callable[[LoadedRun], Any]] = {
  "evaluate.batch_size": lambda run: run.config.get("evaluate.batch_size"),
  "mesh": lambda run: _sizes(run.fact("mesh")),
  "device": lambda run: run.fact("device"),
  # Of several, gradients are added in another order.
  "processes": lambda run: run.fact("processes") or 1,
  "environment": lambda run: run.fact("environment"),
  "versions": lambda run: run.fact("versions"),
  "code": lambda run: run.fact("sources") or run.fact("commit"),
  "seeds trained together": lambda run: _together(run),
}


def changed(runs: Sequence[LoadedRun]) -> str:
  """Returns the inputs that differ between finished runs, as a clause; "" for none."""
  labels: dict[str, dict[str, list[str]]] = {}
  for run in runs:
    for name, value in inputs(run):
      labels.setdefault(name, {}).setdefault(value, []).append(run.label)
  return "; ".join(
    f"{name} changed between its runs ({_by_value(by_value)})"
    for name, by_value in labels.items()
    if len(by_value) > 1
  )


def inputs(run: LoadedRun) -> Iterator[tuple[str, str]]:
  """Yields (name, value) of a run's data, tokenizer, weights, cores and user code.

  Also whether its seeds were trained by one program, which changes last digits.
  """
  data, start = run.fact("data") or {}, run.fact("start") or {}
  task = run.config.get("task")
  named = {
    "the data": data.get("fingerprint"),
    # Variants may have tokenizers of their own; one task has one.
    f"the tokenizer of {task}": data.get("vocabulary"),
    f"the weights in {start.get('folder')}": start.get("weights"),
    "the number of CPU cores": _cores(run),
    "how seeds are trained": _seeds(run),
    **(run.fact("own_code") or {}),
  }
  yield from ((name, str(value)) for name, value in named.items() if value)


def _cores(run: LoadedRun) -> str:
  """Returns the CPU cores that a run computed with, "1+2" where they changed.

  Older results have them in the device's name alone.
  """
  before = run.fact("before")
  parts = [*(before if isinstance(before, list) else ()), run.result or {}]
  numbers = [part.get("cores") or _last_number(part.get("device")) for part in parts]
  return "+".join(dict.fromkeys(str(n) for n in numbers if n))


def _seeds(run: LoadedRun) -> str:
  """Returns whether a program had one seed or all of them; "" without a result."""
  before = run.fact("before")
  parts = [*(before if isinstance(before, list) else ()), run.result or {}]
  words = ["apart" if part.get("seeds_apart") else "together" for part in parts]
  return "+".join(dict.fromkeys(words))


def _sizes(mesh: Any) -> Any:
  """Returns the sizes of a mesh; results of older code do not name all axes."""
  return MeshShape().sizes | mesh if isinstance(mesh, dict) else None


def _together(run: LoadedRun) -> Any:
  """Returns the seeds of one program; None where each seed has its own."""
  return None if run.fact("seeds_apart") else run.fact("seeds")


def _last_number(device: Any) -> str:
  match = re.search(r", (\d+) cores?$", str(device))
  return match[1] if match else ""


def _by_value(labels: dict[str, list[str]]) -> str:
  return ", ".join(
    # A ladder has a variant at each size.
    f"{value[:8]} in {listed([*dict.fromkeys(runs)])}"
    for value, runs in labels.items()
  )


def targets(
  runs: Sequence[LoadedRun], length: int, measure: str
) -> dict[str, Hashable]:
  """Returns {label: identity of its scored targets}; equal values, equal targets.

  The identity is the recorded fingerprint. Where a run of the column has none, since
  it is older than the record, it is the settings that select the targets.
  """
  recorded: dict[str, Hashable] = {
    run.label: run.target(length, measure) for run in runs
  }
  if all(recorded.values()):
    return recorded
  return {run.label: _settings(run, measure) for run in runs}


def _settings(run: LoadedRun, measure: str) -> tuple[str, str]:
  """Returns the settings that select the targets."""
  size = "evaluate.texts" if run.writes(measure) else "evaluate.examples"
  return str(run.config.get("task")), str(run.config.get(size))


def over_lengths(runs: Sequence[LoadedRun]) -> str:
  """Returns a sentence on whether the lengths of a group share their targets.

  The sentence has {} for the group's name.
  """
  recorded = [run.fact("targets") for run in runs]
  if not all(recorded):
    return (
      "In {} some runs did not record their targets: they are compared where they"
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
  if all(len(fingerprints) == 1 for fingerprints in lengths.values()):
    return (
      "In {} all variants are scored on the same targets, and each length has its own:"
      " longer ones are other questions too."
    )
  return "In {} variants are scored on different targets: only equal ones are compared."


def sizes(runs: Sequence[LoadedRun]) -> str:
  """Returns the examples and target tokens of a length, as a clause; "" if unknown."""
  counts = {
    (x["examples"], x["targets"])
    for run in runs
    for x in (run.fact("targets") or {}).values()
  }
  if not counts:
    return ""
  examples, targets = (sorted(set(numbers)) for numbers in zip(*counts, strict=True))
  return (
    f"; each length is scored on {_between(examples)} examples with"
    f" {_between(targets)} target tokens"
  )


def _between(values: list[int]) -> str:
  low, high = f"{values[0]:,}", f"{values[-1]:,}"
  return low if low == high else f"{low} to {high}"


def notes(runs: Sequence[LoadedRun]) -> tuple[str, ...]:
  """Returns notes on differences between runs that change the rounding of scores."""
  lines = []
  for name, setting in ROUNDING.items():
    settings = {run.label: setting(run) for run in runs if setting(run) is not None}
    values: dict[str, list[str]] = {}
    for label, value in _differing(settings).items():
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


def _differing(settings: dict[str, Any]) -> dict[str, Any]:
  """Returns the values by label; of dicts, only the keys in which they differ."""
  values = settings.values()
  if not values or not all(isinstance(value, dict) for value in values):
    return settings
  keys = dict.fromkeys(key for value in values for key in value)
  differing = [key for key in keys if len({str(x.get(key)) for x in values}) > 1]
  return {
    label: {key: x.get(key) for key in differing} for label, x in settings.items()
  }


def _shown(value: Any) -> str:
  if isinstance(value, dict):
    return " ".join(f"{key} {x}" for key, x in value.items())
  return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
