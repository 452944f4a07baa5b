"""Figure of labelled curves over any axis: mean and range of the seeds."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.reporting import panels, picture, style
from experiments.reporting.picture import Numbers, Picture
from experiments.reporting.style import FAINT, FONT, INK, Style

Drawn = tuple[np.ndarray, np.ndarray]  # x, and the mean over seeds
DECADES = 1e10  # of a logarithmic axis at most: below is what rounding leaves


@dataclasses.dataclass(frozen=True)
class LineChart:
  """Curves of one figure, and its words.

  curves     {label: (x of each point, values [seeds, points])}
  x, y       names of the axes; x also heads the column of the CSV file
  title      of the figure
  file       name of its files
  caption    below the figure on a page
  ticks      {x: text} of the axis; empty: numbers
  log        whether the axis of values is logarithmic
  guides     {label: (x, y)} of dashed lines, in the colour of the curve of the label,
             or in grey without one
  dashed     what these lines are

  >>> chart = LineChart({"rope": ([1, 2], [[0.5, 0.25]])}, "distance", "norm", "t", "f")
  >>> [row for row in chart.numbers().rows]
  [('rope', 1, 0.5, 0.5, 0.5), ('rope', 2, 0.25, 0.25, 0.25)]
  """

  curves: Mapping[str, tuple[Sequence[float], Sequence[Sequence[float]]]]
  x: str
  y: str
  title: str
  file: str
  caption: str = ""
  ticks: Mapping[Any, str] = dataclasses.field(default_factory=dict)
  log: bool = False
  guides: Mapping[str, tuple[Any, Any]] = dataclasses.field(default_factory=dict)
  dashed: str = ""

  def numbers(self) -> Numbers:
    """Returns the numbers of the curves: lowest, mean and highest of the seeds."""
    rows = [
      (label, x, float(min(value_S)), float(np.mean(value_S)), float(max(value_S)))
      for label, (xs, value_SX) in self.curves.items()
      for x, value_S in zip(xs, np.transpose(value_SX), strict=True)
    ]
    return Numbers(("variant", self.x, "lowest", "mean", "highest"), rows)


def draw_curves(chart: LineChart, looks: Mapping[str, Style]) -> Picture:
  """Draws the curves; labels stand at their ends.

  looks   styles, by label
  """
  figure, ax, _ = style.blank(style.text_lines(chart.curves))
  if chart.log:
    panels.log_axis(ax)
  for label, guide in chart.guides.items():
    color = looks[label].color if label in looks else FAINT
    ax.plot(*guide, color=color, linestyle=(0, (3, 2)), linewidth=1.2, zorder=0)
  means: dict[str, Drawn] = {}
  for label, (xs, values) in chart.curves.items():
    value_SX, look = np.asarray(values, float), looks[label]
    if chart.log:  # zero has no place on the axis
      value_SX = np.where(value_SX > 0, value_SX, np.nan)
    mean_X = value_SX.mean(0)
    low_X, high_X = value_SX.min(0), value_SX.max(0)
    ax.fill_between(xs, low_X, high_X, color=look.color, alpha=0.16, linewidth=0)
    ax.plot(xs, mean_X, **look.line_kwargs)
    some = slice(len(means) % max(1, len(xs) // 6), None, max(1, len(xs) // 6))
    ax.plot(xs[some], mean_X[some], linestyle="none", **look.marker_kwargs)
    means[label] = np.asarray(xs), mean_X
  if chart.ticks:
    ax.set_xticks(list(chart.ticks), list(chart.ticks.values()))
  low, high = ax.get_ylim()
  low = max(low, high / DECADES) if chart.log else low
  ax.set_ylim(low, high)  # labels need the final ones
  style.name_ends(ax, _ends(means, low), dict(looks))
  ax.set_xlabel(chart.x, fontsize=FONT, color=INK)
  seeds = max(len(value_SX) for _, value_SX in chart.curves.values())
  band = "; band: lowest to highest seed" if seeds > 1 else ""
  band += f"; dashed: {chart.dashed}" if chart.dashed else ""
  of = f"mean of {seeds} seeds" if seeds > 1 else "one seed"
  style.heading(ax, chart.title, f"{chart.y}; {of}{band}")
  return picture.finish(figure, chart.file, chart.title, chart.caption, chart.numbers())


def _ends(means: Mapping[str, Drawn], low: float) -> dict[str, tuple[float, float]]:
  """Returns the last point of each curve that is on the axes.

  means   x and mean of each point, by label
  low     least value of the axis
  """
  ends = {}
  for label, (x_X, mean_X) in means.items():
    drawn = np.flatnonzero(mean_X >= low)  # NaN is not
    if drawn.size:
      ends[label] = float(x_X[drawn[-1]]), float(mean_X[drawn[-1]])
  return ends
