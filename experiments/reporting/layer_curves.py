"""Figures of the step metrics of `train.metrics`: lines by layer over the steps."""

import json
import math
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from experiments.reporting import picture, style
from experiments.reporting.findings import Findings
from experiments.reporting.loaded_run import LoadedRun
from experiments.reporting.picture import Numbers, Picture
from experiments.reporting.style import COLORS, FAINT, FONT, INK, LINES
from transformer_jax import untrusted
from transformer_jax.models.param_tree import natural

PANELS, ACROSS = 9, 3  # variants that a figure draws, and those of them in a row
WIDE = 20  # a ratio of values from which on the axis is logarithmic

Paths = dict[str, dict[int, list[float]]]  # {path: {step: values of the seeds}}


def layer_curves(findings: Findings, group: str) -> Iterator[Picture]:
  """Yields a figure of each metric: a panel for each variant, a line for each layer."""
  named = style.leading(findings, group)
  runs = [run for run in findings.sweep.of(group) if run.config.get("train.metrics")]
  found = {run.label: by_layer(run) for run in runs if run.label in named}
  for metric in dict.fromkeys(name for each in found.values() for name in each):
    some = {label: each[metric] for label, each in found.items() if metric in each}
    yield _figure(group, metric, some, len(some))


def by_layer(run: LoadedRun) -> dict[str, Paths]:
  """Returns the step metrics of a run by name, {} where its log cannot be read.

  Each row has those of the first step of its dispatch.
  """
  if run.folder is None or run.again_of:
    return {}
  before = _whole(run.config.get("train.steps_per_dispatch")) - 1
  found: dict[str, Paths] = {}
  for row in _rows(run.folder / "metrics.jsonl"):
    for name, value in row.items():
      metric, slash, path = name.partition("/")
      if slash and isinstance(value, (int, float)) and math.isfinite(value):
        steps = found.setdefault(metric, {}).setdefault(path, {})
        steps.setdefault(row["step"] - before, []).append(float(value))
  return found


def _rows(path: pathlib.Path) -> Iterator[dict]:
  """Yields the rows of a log; skips lines that a crash cut short."""
  try:
    lines = untrusted.content(path).decode("utf-8", "replace").splitlines()
  except OSError:
    return
  for line in lines:
    try:
      row = json.loads(line)
    except (ValueError, RecursionError):
      continue
    if isinstance(row, dict) and _whole(row.get("step")):
      yield row


def _whole(value: object) -> int:
  return value if isinstance(value, int) else 0


def _figure(group: str, metric: str, found: dict[str, Paths], every: int) -> Picture:
  """Returns the figure of one metric.

  found   by variant
  every   number of variants that have the metric
  """
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  lines = {
    (label, path): (np.array(sorted(steps)), _means(steps))
    for label, paths in found.items()
    for path, steps in paths.items()
  }
  shown = [*found][:PANELS]
  across = min(ACROSS, len(shown))
  rows = -(-len(shown) // across)
  paths = sorted({path for _, path in lines}, key=natural)
  figure = Figure(
    figsize=(max(5.5, 1.2 + 3.3 * across), 1.6 + 2.7 * rows + 0.22 * len(paths))
  )
  FigureCanvasAgg(figure)
  axes = figure.subplots(rows, across, sharex=True, sharey=True, squeeze=False).ravel()
  for ax in axes[len(shown) :]:
    ax.set_visible(False)
  for ax in axes[max(0, len(shown) - across) : len(shown)]:
    ax.set_xlabel("training step", fontsize=FONT - 2, color=INK)
  for label, ax in zip(shown, axes, strict=False):
    _panel(ax, label, {path: lines.get((label, path)) for path in paths})
  values = np.concatenate([mean_T for _, mean_T in lines.values()])
  if values.min() > 0 and values.max() / values.min() > WIDE:
    axes[0].set_yscale("log")
    axes[0].yaxis.set_major_formatter("{x:g}")
    axes[0].yaxis.set_minor_formatter("")
  handles, names = axes[0].get_legend_handles_labels()
  figure.tight_layout(rect=(0, 0.22 * len(paths) / figure.get_figheight(), 1, 0.93))
  figure.legend(
    handles, names, loc="lower left", frameon=False, fontsize=FONT - 2, labelcolor=INK
  )
  title = f"{group}: {metric.replace('_', ' ')} by layer"
  figure.suptitle(
    title, x=0.02, ha="left", fontsize=FONT + 2, fontweight="bold", color=INK
  )
  caption = (
    f"{metric} by training step, mean over seeds, of the first step of each dispatch."
  )
  if every > len(shown):
    caption += f" Of {every} variants {len(shown)} are drawn; the CSV has all."
  numbers = Numbers(
    ("variant", "layer", "step", "mean"),
    [(*key, *row) for key, line in lines.items() for row in zip(*line, strict=True)],
  )
  file = picture.file_name("layers", group, metric)
  return picture.finish(figure, file, title, caption, numbers)


def _panel(ax, label: str, lines: dict) -> None:
  """Draws the lines of one variant; None where it has no such layer."""
  for n, (path, line) in enumerate(lines.items()):
    look: dict[str, Any] = {"color": COLORS[n % len(COLORS)]}
    look["linestyle"] = LINES[n // len(COLORS) % len(LINES)]
    step_T, mean_T = line or ([], [])
    marker = {"marker": "o"} if len(step_T) == 1 else {}
    ax.plot(step_T, mean_T, label=path, linewidth=1.8, **look, **marker)
  ax.set_title(style.wrap(label), fontsize=FONT - 1, color=INK, loc="left")
  ax.set_facecolor("none")
  ax.tick_params(which="both", colors=INK, labelsize=FONT - 3, length=0)
  ax.grid(True, axis="y", color=FAINT, linewidth=0.7)
  for side, spine in ax.spines.items():
    spine.set_visible(side == "bottom")
    spine.set_color(FAINT)


def _means(steps: dict[int, list[float]]) -> np.ndarray:
  return np.array([np.mean(steps[step]) for step in sorted(steps)])
