"""Figure of probes: scores by layer, a curve for each run."""

from collections.abc import Mapping

import numpy as np

from experiments.reporting import picture, style
from experiments.reporting.picture import Numbers, Picture
from experiments.reporting.probe_result import ProbeResult
from experiments.reporting.probe_tables import COLUMNS, Results, title
from experiments.reporting.style import COLORS, FONT, INK, LINES, MARKERS, Style

# Curves beside that of the probe, where they were computed.
BESIDE = {"untrained": (0, (5, 1.5)), "control": (0, (1, 1.4))}
NAMES = {"untrained": "untrained model, dashed", "control": "control labels, dotted"}


def score_by_layer(results: Results, name: str) -> Picture:
  """Draws scores by layer with bands of 95%, untrained and control ones beside them.

  name   of the files
  """
  first = next(iter(results.values()))
  looks = _looks(results)
  figure, ax, _ = style.blank(style.text_lines(results))
  ends = {}
  for label, result in results.items():
    means = _curve(ax, result, looks[label])
    ends[label] = (len(means) - 1, means[-1])
  names = [path.partition("/")[2] for path in first.layers]
  ax.set_xticks(range(len(names)), names)
  ax.set_xlim(-0.15, len(names) - 0.85)
  low, high = ax.get_ylim()
  ax.set_ylim(max(low, -0.02), min(high, 1.02))
  majority = first.estimate("majority", 0).mean
  if majority is not None:
    ax.axhline(majority, color=INK, linewidth=0.8, linestyle=(0, (1, 3)), zorder=1)
  ax.set_xlabel("hidden states", fontsize=FONT, color=INK)
  style.name_ends(ax, ends, looks)
  beside = ", ".join(NAMES[each] for each in BESIDE if each in first.score_SPE)
  seeds = f"{len(first.seeds)} seed{'s' if len(first.seeds) != 1 else ''}"
  heading = f"{first.settings.label} by {first.settings.probe} probe: {first.measure}"
  style.heading(ax, heading, f"mean of {seeds}; {beside or 'band: 95% interval'}")
  caption = (
    f"{title(first)}: {first.measure} by layer, mean over texts of the test and"
    f" {seeds}; band: 95% interval over both. {beside}. Thin line: guessing the most"
    " frequent class."
  )
  rows = [
    (label, *(each[column] for column in COLUMNS[1:]))
    for label, result in results.items()
    for each in result.estimates()
  ]
  return picture.finish(figure, name, heading, caption, Numbers(COLUMNS, rows))


def _curve(ax, result: ProbeResult, look: Style) -> list[float]:
  """Draws the curves of a run; returns the means of the probe."""
  places = range(len(result.layers))
  found = [result.estimate("probe", n) for n in places]
  means = [float("nan") if x.mean is None else x.mean for x in found]
  ends = [x.interval or (mean, mean) for x, mean in zip(found, means, strict=True)]
  low, high = np.array(ends, np.float64).T
  ax.fill_between(places, low, high, color=look.color, alpha=0.16, linewidth=0)
  ax.plot(places, means, zorder=3, **look.line_kwargs)
  ax.plot(places, means, zorder=4, linestyle="", **look.marker_kwargs)
  for name, line in BESIDE.items():
    if name in result.score_SPE:
      y = [result.estimate(name, n).mean for n in places]
      ax.plot(places, y, color=look.color, linestyle=line, linewidth=1.0, alpha=0.8)
  return means


def _looks(results: Mapping[str, ProbeResult]) -> dict[str, Style]:
  """Returns {label: its style}."""
  return {
    label: Style(COLORS[i % len(COLORS)], MARKERS[i % len(MARKERS)], LINES[0])
    for i, label in enumerate(results)
  }
