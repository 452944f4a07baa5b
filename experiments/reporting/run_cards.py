"""One card for each run: its config beside the baseline's, its losses and scores."""

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.reporting import time_spent
from experiments.reporting.findings import Findings
from experiments.reporting.loaded_run import LoadedRun
from experiments.reporting.report_table import Table
from experiments.reporting.text import measure_name, multiple, number

WIDTH, HEIGHT = 320, 120  # of a card's curves, in units of its own
POINTS = 60  # of a curve: more are thinned
SAMPLES = 3  # generated texts


@dataclasses.dataclass(frozen=True)
class Frame:
  """Axes of the curves of a group's cards: steps from left to right, loss low to high.

  >>> Frame(20, 240, 2.5, 4.0).span
  'steps 20 to 240, loss 4.000 to 2.500'
  """

  left: int
  right: int
  low: float
  high: float

  @property
  def span(self) -> str:
    """Returns what the axes reach, in words."""
    losses = f"loss {number(self.high)} to {number(self.low)}"
    return f"steps {self.left:,} to {self.right:,}, {losses}"


@dataclasses.dataclass(frozen=True)
class Card:
  """What the page shows of one run.

  config    of the run, as JSON
  changes   (key, value, the baseline's value) of each setting that differs
  lines     one polyline of the training loss for each seed, as SVG points
  span      what the axes of the lines reach, in words; the same in a group
  scores    a line for each measure and length, a column for each seed
  samples   (source, reference, generated text)
  time      what its time was spent on, in a sentence; "": it was not recorded

  >>> config = {"model.position": "rope", "seeds": [0]}
  >>> none = LoadedRun("a1", "none", "text", "failed", config=config | {"seeds": [1]})
  >>> rope = LoadedRun("b2", "rope", "text", "running", config=config)
  >>> card(rope, none, axes=None).changes
  [('seeds', '0', '1')]
  """

  run: LoadedRun
  config: str
  changes: list[tuple[str, str, str]]
  lines: list[str]
  span: str
  scores: Table
  samples: list[tuple[str, str, str]]
  time: str


def cards(findings: Findings) -> list[Card]:
  """Returns the cards of all runs, finished or not, in the plan's order.

  A run that two lines of the plan name has one. Curves of a group have the same axes.
  """
  sweep = findings.sweep
  lines = [run for run in sweep.runs if not run.again_of]
  trained = {run.id: run for run in reversed(lines)}
  base = {run.group: run for run in sweep.runs if run.label == sweep.baseline}
  frames = {group: frame(sweep.of(group)) for group in sweep.groups}
  return [
    card(
      run,
      base.get(run.group),
      frames[run.group],
      again=[
        x for x in sweep.runs if x.again_of and (x.id, x.label) == (run.id, run.label)
      ],
    )
    for run in lines
    if trained[run.id] is run
  ]


def card(
  run: LoadedRun,
  baseline: LoadedRun | None,
  axes: Frame | None,
  again: Sequence[LoadedRun] = (),
) -> Card:
  """Returns the card of a run.

  baseline   of its group, if it has one
  axes       of its group's curves
  again      the same run as it was scored again
  """
  written = run.fact("written") or {}
  return Card(
    run=run,
    config=json.dumps(run.config),
    changes=changes(run, baseline),
    lines=curves(run, axes) if axes else [],
    span=axes.span if axes else "",
    scores=scores(run, again),
    samples=[
      (str(source), str(reference), str(text))
      for source, reference, text in written.get("samples", ())[:SAMPLES]
    ],
    time=time_spent.time_spent(run),
  )


def changes(run: LoadedRun, baseline: LoadedRun | None) -> list[tuple[str, str, str]]:
  """Returns (key, value, the baseline's) of the settings in which two runs differ."""
  if baseline is None or run is baseline:
    return []
  ours, theirs = run.config, baseline.config
  keys = sorted(ours.keys() | theirs.keys()) if ours and theirs else []
  return [
    (key, _value(ours.get(key)), _value(theirs.get(key)))
    for key in keys
    if ours.get(key) != theirs.get(key)
  ]


def _value(value: Any) -> str:
  return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def frame(runs: Sequence[LoadedRun]) -> Frame | None:
  """Returns the axes that show the losses of all runs; None without two points.

  The highest 1% may lie above: a diverging run must not flatten the others.
  """
  points = [point for run in runs for curve in _logged(run) for point in curve]
  if len(points) < 2:
    return None
  steps, losses = zip(*points, strict=True)
  high = float(np.quantile(losses, 0.99))
  return Frame(min(steps), max(steps), min(losses), high)


def curves(run: LoadedRun, axes: Frame) -> list[str]:
  """Returns the points of each seed's loss by step, thinned, as SVG writes them."""
  across, up = (axes.right - axes.left) or 1, (axes.high - axes.low) or 1.0
  return [
    " ".join(
      f"{WIDTH * (x - axes.left) / across:.0f},"
      f"{HEIGHT * max(0.0, axes.high - y) / up:.1f}"
      for x, y in [*curve[:: math.ceil(len(curve) / POINTS)], curve[-1]]
    )
    for curve in _logged(run)
  ]


def _logged(run: LoadedRun) -> list[list[tuple[int, float]]]:
  """Returns the (step, loss) of each seed that are finite, by growing step."""
  curves = (
    sorted((x, y) for x, y in losses.items() if math.isfinite(y))
    for _, losses in sorted(run.losses.items())
  )
  return [curve for curve in curves if curve]


def scores(run: LoadedRun, again: Sequence[LoadedRun] = ()) -> Table:
  """Returns a run's scores: measure and length by seed.

  again   the same run as it was scored again
  """
  seeds = run.fact("seeds") or []
  rows = [
    (
      f"{measure_name(measure['name'])} at {multiple(times)}"
      + (f", {each.group}" if each.again_of else ""),
      *(number(values.get(seed)) for seed in seeds),
    )
    for each in (run, *again)
    for measure in each.fact("measures") or ()
    for length, times in sorted(each.times.items())
    if (values := each.values(length, measure["name"], "mean"))
  ]
  header = ("score", *(f"seed {seed}" for seed in seeds))
  return Table(f"scores_{run.id}", "Scores by seed", header, tuple(rows))
