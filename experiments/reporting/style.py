"""Style of the figures: colours, markers, axes, labels.

Labels stand at the ends of their curves, spread so that none overlap.
"""

import dataclasses
import re
import textwrap
from collections.abc import Iterable, Sequence

import numpy as np

from experiments.reporting.findings import Findings
from experiments.reporting.statistics import lower_is_better

INK, FAINT, PAPER = "#1c2024", "#c8cdd4", "#fefefe"
# Okabe and Ito's colours without yellow and black, which vanish on light or dark paper.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6BB1")
ON_DARK = ("#3A9BDC", "#EF7D2E", "#22B88F", "#D88FB8", "#F0B030", "#7CC8F2", "#A98BD0")
MARKERS = "osD^vPXd<>"
LINES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)))
SIGNS = {"better": "#0072B2", "worse": "#D55E00"}
CUT = " An arrow at the frame: the interval goes on; the tables have its ends."
FONT = 13
WRAP = 24
MOST = 24  # variants that a figure names; of more, the leading ones


@dataclasses.dataclass(frozen=True)
class Style:
  """Colour, marker and line of one variant, the same in every figure.

  >>> Style("#1f77b4", "o", "-").line_kwargs
  {'color': '#1f77b4', 'linestyle': '-', 'linewidth': 2.0}
  """

  color: str
  marker: str
  line: str | tuple

  @property
  def line_kwargs(self) -> dict:
    return {"color": self.color, "linestyle": self.line, "linewidth": 2.0}

  @property
  def marker_kwargs(self) -> dict:
    edge = {"markeredgecolor": PAPER, "markeredgewidth": 0.9}
    return {"color": self.color, "marker": self.marker, "markersize": 8} | edge


def styles(findings: Findings) -> dict[str, Style]:
  """Returns {label: its style in the whole report}; the baseline is dashed ink."""
  baseline = findings.sweep.baseline
  labels = dict.fromkeys(run.label for run in findings.sweep.runs)
  others = [label for label in labels if label != baseline]
  dashed = Style(INK, "o", (0, (4, 2)))
  return styles_of(others) | ({} if baseline is None else {baseline: dashed})


def styles_of(labels: Sequence[str]) -> dict[str, Style]:
  """Returns a style for each label.

  >>> [look.marker for look in styles_of(["rope", "alibi"]).values()]
  ['o', 's']
  """
  return {
    label: Style(
      COLORS[n % len(COLORS)],
      MARKERS[n % len(MARKERS)],
      LINES[n // len(COLORS) % len(LINES)],
    )
    for n, label in enumerate(labels)
  }


def leading(findings: Findings, group: str, measure: str = "") -> list[str]:
  """Returns the variants that a group's figures name, in the plan's order.

  measure   "": the headline measure

  They are all, or of more than MOST the baseline with those whose means are best at the
  trained and at the longest length, in turn.
  """
  labels = [run.label for run in findings.sweep.of(group)]
  if len(labels) <= MOST:
    return labels
  ends = {*findings.lengths(group)[-1:]}
  if (trained := findings.trained(group)) is not None:
    ends.add(trained)
  ranked = [
    [
      c.label
      for c in sorted(
        findings.at(group, length, measure),
        key=lambda c: lower_is_better(c.estimate.mean, c.better),
      )
    ]
    for length in sorted(ends)
  ]
  in_turn = (label for rank in zip(*ranked, strict=True) for label in rank)
  baseline = [label for label in labels if label == findings.sweep.baseline]
  chosen = list(dict.fromkeys([*baseline, *in_turn, *labels]))[:MOST]
  return [label for label in labels if label in chosen]


def left_out(named: int, count: int) -> str:
  """Returns the sentence of a caption on variants without a name, "" for none.

  named    number of variants with a name
  count    number of all variants
  """
  if named == count:
    return ""
  return (
    f" Of {count} variants the {named} that lead at the trained or the longest"
    " length are drawn; the tables have all."
  )


def spread(wanted, heights, low: float, high: float) -> np.ndarray:
  """Returns the centres nearest to the wanted ones at which labels do not overlap.

  wanted    centres, in pixels
  heights   of the labels, in pixels
  low, high bounds of all labels, in pixels
  """
  from scipy.optimize import isotonic_regression

  wanted, heights = np.asarray(wanted, float), np.asarray(heights, float)
  order = np.argsort(wanted, kind="stable")
  tall = heights[order]
  below = np.concatenate([[0.0], np.cumsum((tall[:-1] + tall[1:]) / 2)])
  level = isotonic_regression(wanted[order] - below).x
  level = np.clip(level, low + tall[0] / 2, high - below[-1] - tall[-1] / 2)
  centres = np.empty_like(wanted)
  centres[order] = level + below
  return centres


def wrap(label: str) -> str:
  """Breaks a long label after commas and brackets, then anywhere."""
  spaced = re.sub(r"([,(])(?=\S)", "\\1\u200b", label).replace("\u200b", "\0 ")
  lines = textwrap.wrap(spaced, WRAP, break_on_hyphens=False) or [label]
  return "\n".join(line.replace("\0 ", "").replace("\0", "") for line in lines)


def text_lines(labels: Iterable[str]) -> int:
  """Returns the number of lines of wrapped labels, one below the other."""
  return sum(wrap(label).count("\n") + 1 for label in labels)


def blank(lines: int, strip: int = 0):
  """Returns a figure, its axes, and the axes of a strip below them.

  lines   of text beside the axes, which set the height
  strip   lines of the strip; 0: none, and None is returned for it
  """
  import matplotlib
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  matplotlib.rcParams["text.parse_math"] = False
  height = max(4.0, 0.24 * lines) + 0.36 * strip
  figure = Figure(figsize=(5.5, height + 1.3))
  FigureCanvasAgg(figure)
  sizes = [height - 0.36 * strip, 0.36 * strip] if strip else [height]
  axes = figure.subplots(len(sizes), sharex=True, squeeze=False, height_ratios=sizes)[
    :, 0
  ]
  top, bottom = 1 - 0.62 / (height + 1.3), 0.68 / (height + 1.3)
  figure.subplots_adjust(left=0.13, right=0.985, top=top, bottom=bottom, hspace=0.03)
  for ax in axes:
    ax.set_facecolor("none")
    ax.tick_params(colors=INK, labelsize=FONT - 1, length=0)
    ax.grid(True, axis="y", color=FAINT, linewidth=0.7)
    ax.set_axisbelow(True)
    for side, spine in ax.spines.items():
      spine.set_visible(side == "bottom")
      spine.set_color(FAINT)
  return figure, axes[0], axes[1] if strip else None


def heading(ax, title: str, subtitle: str) -> None:
  """Writes title and subtitle above the axes, flush with its labels on the left."""
  box = ax.get_tightbbox(ax.figure.canvas.get_renderer())
  left = ax.transAxes.inverted().transform((box.x0, 0))[0]
  kwargs = {"xycoords": "axes fraction", "textcoords": "offset points", "color": INK}
  ax.annotate(title, (left, 1), (0, 26), fontsize=FONT + 2, fontweight="bold", **kwargs)
  ax.annotate(subtitle, (left, 1), (0, 9), fontsize=FONT - 2, **kwargs)


def name_ends(
  ax, ends: dict[str, tuple[float, float]], looks: dict[str, Style]
) -> list:
  """Writes each label right of the axes, joined by a thin line to its curve's end.

  ends    {label: (x, y)} of the last point of a curve
  looks   {label: its style}
  """
  if not ends:
    return []
  renderer = ax.figure.canvas.get_renderer()
  box = ax.get_window_extent(renderer)
  scale = ax.figure.dpi / 72
  texts = [_label(ax, label) for label in ends]
  heights = [text.get_window_extent(renderer).height + 3 * scale for text in texts]
  points = ax.transData.transform(list(ends.values()))
  points = ax.transAxes.inverted().transform(points)
  wanted = points[:, 1] * box.height
  slack = max(0.0, sum(heights) - box.height) / 2
  centres = spread(wanted, heights, -slack, box.height + slack) / box.height
  for text, label, (x, y), centre in zip(texts, ends, points, centres, strict=True):
    text.set_y(centre)
    _join(ax, (x, y), centre, looks[label])
  return texts


def _label(ax, label: str):
  """Writes a label right of the axes, whose height is not yet known."""
  return ax.text(
    1.085,
    0,
    wrap(label),
    transform=ax.transAxes,
    va="center_baseline",
    color=INK,
    fontsize=FONT,
    linespacing=1.0,
  )


def _join(ax, end: tuple[float, float], centre: float, look: Style) -> None:
  """Draws a line from a curve's end to its label, and the marker before the label.

  end      (x, y) of the curve's end, as parts of the axes
  centre   y of the label
  """
  x, y = end
  ax.plot(
    [x, 1.02, 1.04],
    [y, centre, centre],
    color=look.color,
    linewidth=0.8,
    transform=ax.transAxes,
    clip_on=False,
    zorder=1,
  )
  ax.plot(1.055, centre, transform=ax.transAxes, clip_on=False, **look.marker_kwargs)


def mark_cut(ax, axis: str, at: float, ends: tuple[float, float], color: str) -> None:
  """Draws an arrow at the frame for each end of an interval that lies beyond it.

  axis    "x" or "y": the axis of the interval
  at      its coordinate on the other axis
  ends    of the interval, in data coordinates
  color   of the arrows
  """
  limits = ax.get_xlim() if axis == "x" else ax.get_ylim()
  arrows = ("<", ">") if axis == "x" else ("v", "^")
  beyond = ends[0] < min(limits), ends[1] > max(limits)
  for edge, arrow, cut in zip((min(limits), max(limits)), arrows, beyond, strict=True):
    if cut:
      x, y = (edge, at) if axis == "x" else (at, edge)
      ax.plot(x, y, arrow, color=color, markersize=8, clip_on=False, zorder=5)
