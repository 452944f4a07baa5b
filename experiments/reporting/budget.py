"""Budget of a group: what each run was given, and what was tuned and matched."""

from collections.abc import Callable, Sequence
from typing import Any

from experiments.reporting import tuning_report
from experiments.reporting.findings import Findings
from experiments.reporting.loaded_run import LoadedRun
from experiments.reporting.report_table import Table
from experiments.reporting.text import count, listed

Fact = Callable[[LoadedRun], Any]

# Settings that the table has lines for; others that differ are listed under their keys.
SHOWN = (
  *("train.steps", "train.batch_size", "train.length", "train.optimizer"),
  *("train.schedule", "seeds", "evaluate.examples"),
)
TIE = 0.01  # budgets within 1% of each other are equal


def budget_table(findings: Findings, group: str) -> Table:
  """Returns a group's budget: training, size, seeds, scored examples, fairness.

  Settings come from the recorded configs of all runs, counts from finished runs. A line
  names the variants that differ from the others.
  """
  runs = [run for run in findings.sweep.of(group) if run.config]
  done = [run for run in runs if run.result]
  lines = {
    "training steps": by_value(runs, _setting("train.steps")),
    "batch": by_value(runs, _batch),
    "tokens in training, each seed": by_value(done, _tokens),
    "FLOPs in training, each seed": _between(done, training_flops),
    "FLOPs for each token": _between(done, lambda run: run.fact("flops_per_token")),
    "optimizer and learning rate": by_value(runs, _setting("train.optimizer")),
    "schedule": by_value(runs, _setting("train.schedule")),
    "parameters": _between(done, lambda run: run.fact("parameters")),
    "seeds": by_value(runs, _seeds),
    "scored examples, each length": by_value(done, examples),
    "tuned": tuned(runs),
    "matched": matched(done),
    "settings that differ": listed(differing(runs) or ["none"]),
  }
  rows = tuple((name, text) for name, text in lines.items() if text and runs)
  title = f"{group}: budget of each run"
  return Table(f"budget_{group}", title, ("budget", "value"), rows, folds=(0, 1))


def by_value(runs: Sequence[LoadedRun], reader: Fact) -> str:
  """Returns the value of most runs, then each other value with its variants."""
  labels: dict[str, list[str]] = {}
  for run in runs:
    if (value := reader(run)) is not None:
      labels.setdefault(_text(value), []).append(run.label)
  if not labels:
    return ""
  usual = max(labels, key=lambda value: len(labels[value]))
  others = (
    f"{value} in {listed(names)}" for value, names in labels.items() if value != usual
  )
  return "; ".join([usual, *others])


def _text(value: Any) -> str:
  if isinstance(value, int) and not isinstance(value, bool):
    return f"{value:,}"
  return f"{value:.3g}" if isinstance(value, float) else str(value)


def _setting(key: str) -> Fact:
  return lambda run: run.config.get(key)


def _between(runs: Sequence[LoadedRun], reader: Fact) -> str:
  """Returns a count, or its range with the variants at both ends."""
  values = {run.label: value for run in runs if (value := reader(run))}
  if not values:
    return ""
  low, high = min(values, key=values.__getitem__), max(values, key=values.__getitem__)
  if values[low] == values[high]:
    return count(values[low])
  return f"{count(values[low])} ({low}) to {count(values[high])} ({high})"


def _batch(run: LoadedRun) -> str | None:
  size, length = (run.config.get(f"train.{key}") for key in ("batch_size", "length"))
  return f"{size:,} examples of length {length}" if size and length else None


def _tokens(run: LoadedRun) -> int | None:
  per_step, steps = run.fact("tokens_per_step"), run.config.get("train.steps")
  return per_step * steps if per_step and steps else None


def training_flops(run: LoadedRun) -> float | None:
  """Returns the FLOPs of one seed's training, None where they were not recorded."""
  tokens, each = _tokens(run), run.fact("flops_per_token")
  return tokens * each if tokens and each else None


def _seeds(run: LoadedRun) -> str | None:
  seeds = run.config.get("seeds") or run.fact("seeds")
  if not isinstance(seeds, list) or not seeds:
    return None
  return f"{len(seeds)} ({', '.join(map(str, seeds))})"


def examples(run: LoadedRun) -> str | None:
  """Returns "32 of 14,032", the scored examples of a length and those there are."""
  targets = (run.fact("targets") or {}).values()
  numbers = sorted({x["examples"] for x in targets})
  if not numbers:
    return None
  text = " to ".join(f"{n:,}" for n in dict.fromkeys([numbers[0], numbers[-1]]))
  there = (run.fact("data") or {}).get("windows")
  return f"{text} of {there:,}" if isinstance(there, int) else text


def tuned(runs: Sequence[LoadedRun]) -> str:
  """Returns which settings were searched for, and what the searches chose."""
  if not runs:
    return ""
  if any(run.tuned for run in runs):
    return tuning_report.summary(runs)
  rates = {run.config.get("train.optimizer") for run in runs}
  same = "every variant has the same optimizer and learning rate"
  return f"nothing; {same if len(rates) == 1 else 'the plan sets the learning rates'}"


def matched(runs: Sequence[LoadedRun]) -> str:
  """Returns what was solved for, the costs equal to 1%, and the spread of others."""
  readers: dict[str, Fact] = {
    "steps": _setting("train.steps"),
    "tokens": _tokens,
    "parameters": lambda run: run.fact("parameters"),
    "FLOPs": lambda run: training_flops(run) or run.fact("flops_per_token"),
  }
  equal, unequal = [], []
  for name, reader in readers.items():
    values = [value for run in runs if (value := reader(run))]
    if len(values) < 2:
      continue
    ratio = max(values) / min(values)
    if ratio <= 1 + TIE:
      equal.append(name)
    else:
      unequal.append(f"{name} (largest {ratio:.3g} times the smallest)")
  if not (equal or unequal):
    return ""
  parts = [solved(runs)]
  parts += [f"equal to 1%: {listed(equal)}"] if equal else []
  parts += [f"not equal: {listed(unequal)}"] if unequal else []
  return "; ".join(parts)


def solved(runs: Sequence[LoadedRun]) -> str:
  """Returns what was solved for, variant by variant, with the difference left."""
  each = {run.label: run.matched for run in runs if run.matched}
  if not each:
    return "nothing was solved for"
  first = next(iter(each.values()))
  cells = []
  for label, matched in each.items():
    values = " ".join(f"{key}={x}" for key, x in matched.overrides.items())
    cells.append(f"{label} {values or 'unchanged'} ({matched.off:+.1%})")
  goal = f"{first.quantity} of {first.baseline} ({count(first.want)})"
  return f"{goal}, by {first.by}: {', '.join(cells)}"


def differing(runs: Sequence[LoadedRun]) -> list[str]:
  """Returns the keys of configs in which a group's runs differ, but those shown."""
  keys = sorted({key for run in runs for key in run.config} - {*SHOWN})
  return [k for k in keys if len({repr(run.config.get(k)) for run in runs}) > 1]
