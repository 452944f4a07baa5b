"""Figure of probes: scores by layer, a curve for each run."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.reporting import picture, style
from experiments.reporting.picture import Numbers, Picture
from experiments.reporting.probe_result import others
from experiments.reporting.probe_tables import COLUMNS
from experiments.reporting.style import COLORS, FONT, INK, LINES, MARKERS, Style

Records = Mapping[str, Mapping[str, Any]]  # `ProbeResult.record` by label of the run

# Curves beside that of the probe, where they were computed: {score: (name, line)}.
BESIDE = {
  "untrained": ("dashed: untrained models", (0, (5, 1.5))),
  "control": ("dotted: control labels", (0, (1, 1.4))),
}


def score_by_layer(
  settings: Mapping[str, Any],
  records: Records,
  name: str,
  looks: dict[str, Style] | None = None,
) -> Picture:
  """Draws scores by layer with bands of 95%, untrained and control ones beside them.

  settings   fields of `ProbeSettings`
  records    of the runs, which have the same layers
  name       of the files
  looks      styles, by label; None: one for each
  """
  first = next(iter(records.values()))
  looks = _looks(records) if looks is None else looks
  figure, ax, _ = style.blank(style.text_lines(records))
  majority = [means(record, "majority")[0][0] for record in records.values()]
  ax.axhline(np.mean(majority), color=INK, linewidth=0.8, linestyle=(0, (1, 3)))
  ends: dict[str, tuple[float, float]] = {}
  for label, record in records.items():
    mean_P = _curve(ax, record, looks[label])
    ends[label] = (len(mean_P) - 1, float(mean_P[-1]))
  names = [path.partition("/")[2].replace("_", " ") for path in first["layers"]]
  ax.set_xticks(range(len(names)), names)
  ax.set_xlim(-0.15, len(names) - 0.85)
  ax.set_xlabel("hidden states", fontsize=FONT, color=INK)
  style.name_ends(ax, ends, looks)
  beside = "; ".join(
    words for score, (words, _) in BESIDE.items() if means(first, score)
  )
  count = len(first["seeds"])
  seeds = f"mean of {count} seed{'s' if count != 1 else ''}"
  what = f"{settings['label']} by {settings['probe']} probe: {first['measure']}"
  style.heading(ax, what, "; ".join(filter(None, [seeds, beside])))
  caption = (
    f"{what} by layer, {first['classes']} classes, {seeds}; band: 95% interval over"
    f" seeds and texts. {beside}. Thin line: guessing the most frequent class."
  )
  if changed := others(settings):
    caption += f" Settings: {', '.join(f'{x}={y}' for x, y in changed.items())}."
  rows = [
    (label, *(each[column] for column in COLUMNS[1:]))
    for label, record in records.items()
    for each in record["estimates"]
  ]
  return picture.finish(figure, name, what, caption, Numbers(COLUMNS, rows))


def means(record: Mapping[str, Any], score: str) -> list[tuple[float, float, float]]:
  """Returns (mean, low, high) of each layer; [] where the score was not computed."""
  found = []
  for each in record["estimates"]:
    if each["score"] == score:
      mean = np.nan if each["mean"] is None else each["mean"]
      low, high = (mean if each[x] is None else each[x] for x in ("low", "high"))
      found.append((mean, low, high))
  return found


def _curve(ax, record: Mapping[str, Any], look: Style) -> np.ndarray:
  """Draws the curves of a run; returns the means of the probe."""
  mean_P, low_P, high_P = np.array(means(record, "probe"), np.float64).T
  places = range(len(mean_P))
  ax.fill_between(places, low_P, high_P, color=look.color, alpha=0.16, linewidth=0)
  ax.plot(places, mean_P, zorder=3, **look.line_kwargs)
  ax.plot(places, mean_P, zorder=4, linestyle="", **look.marker_kwargs)
  for score, (_, line) in BESIDE.items():
    if beside := means(record, score):
      y = [mean for mean, *_ in beside]
      ax.plot(places, y, color=look.color, linestyle=line, linewidth=1.0, alpha=0.8)
  return mean_P


def _looks(records: Records) -> dict[str, Style]:
  """Returns {label: its style}."""
  return {
    label: Style(COLORS[i % len(COLORS)], MARKERS[i % len(MARKERS)], LINES[0])
    for i, label in enumerate(records)
  }
