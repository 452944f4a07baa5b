"""Scores of a sweep in long form, one record for each seed, as in results_by_seed.csv.

They hold all that the report's means and intervals over seeds are computed from. Scores
of single examples are in examples.npz of each run: see evaluation/example_scores.py.
"""

import csv
import io
from collections.abc import Set
from typing import Any

from experiments.reporting import comparable, limits
from experiments.reporting.cells import Cell, primary_cells
from experiments.reporting.load import ReportError
from experiments.reporting.loaded_run import LoadedRun, Sweep, finite
from transformer_jax.spec import nearest
from transformer_jax.untrusted import cell

COLUMNS = (
  *("group", "variant", "id", "seed", "length", "times_trained"),
  *("measure", "better", "part", "value", "reason", "baseline", "target", "inputs"),
  *("primary", "margin", "low", "high", "examples"),
)


def records(sweep: Sweep, *keys: str) -> list[dict[str, Any]]:
  """Returns one record for each score of a finished run, with the names in COLUMNS.

  sweep   the sweep's folder, read
  keys    of configs, whose values are added to each record, as in "train.length"

  value      None: there is none, for the `reason`
  target     fingerprint of the scored targets; runs are compared where it is equal
  inputs     fingerprints of data, tokenizer, pretrained weights and user code; a group
             is compared where each of them is equal in all its runs
  primary    whether the score is one of those with verdicts
  margin     difference up to which two variants are equivalent, if the plan has one
  low, high  bounds of the measure, where it has some
  examples   scored at this length

  Raises ReportError for a key that no config has.
  """
  for key in keys:
    known = {name for run in sweep.runs for name in run.config}
    if key not in known:
      raise ReportError(f"no run has a key {key}.{nearest(key, known)}")
  judged = {cell for group in sweep.groups for cell in primary_cells(sweep, group)}
  return [
    record | {key: run.config.get(key) for key in keys}
    for run in sweep.runs
    if run.result
    for record in _records(run, sweep, judged)
  ]


def _records(run: LoadedRun, sweep: Sweep, judged: Set[Cell]) -> list[dict[str, Any]]:
  """Returns the records of one finished run.

  judged   cells with verdicts
  """
  better = {x["name"]: x["better"] for x in run.fact("measures")}
  inputs = "; ".join(f"{name} {value[:16]}" for name, value in comparable.inputs(run))
  return [
    {
      "group": run.group,
      "variant": run.label,
      "id": run.id,
      "seed": score["seed"],
      "length": score["length"],
      "times_trained": score["length"] / run.fact("train_length"),
      "measure": score["measure"],
      "better": better.get(score["measure"]),
      "part": score.get("part", "mean"),
      "value": score["value"] if finite(score["value"]) else None,
      "reason": _reason(run, score),
      "baseline": sweep.baseline,
      "target": run.target(score["length"], score["measure"]),
      "inputs": inputs,
      "primary": _cell(run, score) in judged,
      **_limits(run, sweep, score["measure"]),
      "examples": limits.examples(run, score["length"], score["measure"]),
    }
    for score in run.fact("scores")
  ]


def _cell(run: LoadedRun, score: dict[str, Any]) -> Cell:
  part = score.get("part", "mean")
  return Cell(run.group, score["measure"], part, score["length"])


def _limits(run: LoadedRun, sweep: Sweep, measure: str) -> dict[str, float | None]:
  low, high = limits.bounds([run], measure)
  return {"margin": sweep.comparisons.margin_of(measure), "low": low, "high": high}


def _reason(run: LoadedRun, score: dict[str, Any]) -> str:
  """Returns why a score has no value, "" where it has one."""
  if score["value"] is not None:
    return ""
  undefined = (run.fact("undefined") or {}).get(str(score["length"]), "")
  return score.get("reason") or undefined


def to_csv(sweep: Sweep) -> str:
  """Returns the records as a CSV file with all digits of each value."""
  out = io.StringIO()
  writer = csv.writer(out, lineterminator="\n")
  writer.writerow(COLUMNS)
  for record in records(sweep):
    writer.writerow(cell(record[name]) for name in COLUMNS)
  return out.getvalue()
