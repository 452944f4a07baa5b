"""Figure of the variants' differences from the baseline."""

import numpy as np

from experiments.reporting import picture, sampling, style
from experiments.reporting.findings import Comparison, Findings, column
from experiments.reporting.picture import Numbers, Picture
from experiments.reporting.statistics import lower_is_better
from experiments.reporting.style import FAINT, FONT, INK, PAPER, SIGNS
from experiments.reporting.text import measure_name, plus_minus


def differences(findings: Findings, group: str) -> Picture:
  """Draws each variant's difference from the baseline at the longest judged length."""
  baseline = findings.sweep.baseline
  cell = findings.main(group)[-1]
  better = findings.measures(group)[cell.measure]
  compared = [c for c in findings.cell(cell) if c.label != baseline]
  compared.sort(key=lambda c: lower_is_better(c.difference.mean, c.better))
  numbers, every = _numbers(compared), len(compared)
  named = style.leading(findings, group)
  compared = [c for c in compared if c.label in named]
  figure, ax, _ = style.blank(0)
  middle = _variant_axis(figure, ax, [c.label for c in compared])
  for y, comparison in zip(middle, compared, strict=True):
    _difference(ax, y, comparison)
  _symmetric(ax, compared)
  cut = _mark_cut(ax, middle, compared)
  name = measure_name(cell.measure)
  ax.set_xlabel(f"{name}, difference from {baseline}", fontsize=FONT, color=INK)
  title = f"{group}: difference from {baseline} at {column(compared)}"
  side = "left" if better == "lower" else "right"
  how = f"{side} is better; bar: 95% interval"
  style.heading(ax, title, how)
  caption = (
    f"{name} minus that of {baseline} at length {cell.length}, over the seeds of both,"
    " with its 95% interval. Filled: resolved, with 5% error for all verdicts of the"
    " report; hollow: not."
  )
  caption += f" {sampling.NOTE}" if findings.looks else ""
  caption += style.CUT if cut else ""
  caption += style.left_out(len(compared), every)
  file = picture.file_name("differences", group)
  return picture.finish(figure, file, title, caption, numbers)


def _numbers(compared: list[Comparison]) -> Numbers:
  header = "variant length measure seeds difference low high p p_holm verdict".split()
  rows = [
    (c.label, c.length, c.measure, c.difference.count)
    + (c.difference.mean, c.difference.low, c.difference.high)
    + (c.p, c.p_holm, c.verdict)
    for c in compared
  ]
  return Numbers(header, rows)


def _variant_axis(figure, ax, labels: list[str]) -> np.ndarray:
  """Gives each variant a line as high as its label; returns the y of each."""
  tall = np.array([max(1.5, style.text_lines([label])) for label in labels])
  figure.set_figheight(max(2.6, 0.34 * tall.sum()) + 1.3)
  middle = np.cumsum(tall) - tall / 2
  ax.set_ylim(sum(tall), 0)
  ax.set_yticks(middle, [style.wrap(label) for label in labels], fontsize=FONT)
  ax.grid(False)
  ax.grid(True, axis="x", color=FAINT, linewidth=0.7)
  ax.axvline(0, color=INK, linewidth=1.2)
  return middle


def _mark_cut(ax, middle: np.ndarray, compared: list[Comparison]) -> bool:
  """Marks intervals that the frame cuts; returns whether there are any."""
  left, right = ax.get_xlim()
  beyond = False
  for y, comparison in zip(middle, compared, strict=True):
    if ends := comparison.difference.interval:
      style.mark_cut(ax, "x", y, ends, SIGNS.get(comparison.verdict, INK))
      beyond |= ends[0] < left or ends[1] > right
  return beyond


def _difference(ax, y: float, comparison: Comparison) -> None:
  """Draws one variant's difference and writes it, with the verdict, beside it."""
  difference, verdict = comparison.difference, comparison.verdict
  color, text = SIGNS.get(verdict, INK), verdict
  if difference.count:
    text = f"{plus_minus(difference, True)}\n{verdict}"
    mark = {"better": "o", "worse": "s"}.get(verdict, "D")
    face = color if verdict in SIGNS else PAPER
    kwargs = {"color": color, "markersize": 9, "markeredgewidth": 2}
    if ends := difference.interval:
      ax.plot([*ends], [y, y], color=color, linewidth=2.6, solid_capstyle="butt")
    ax.plot(difference.mean, y, marker=mark, markerfacecolor=face, **kwargs)
  ax.text(
    1.03,
    y,
    text,
    transform=ax.get_yaxis_transform(),
    va="center",
    color=INK,
    fontsize=FONT - 2,
    linespacing=1.1,
  )


def _symmetric(ax, compared: list[Comparison]) -> None:
  """Fits the axis to the differences and zero; a wide interval may be cut."""
  differences = [c.difference for c in compared]
  means = [d.mean for d in differences if d.mean is not None]
  ends = [end for d in differences for end in d.interval or ()] + means
  far = max(map(abs, ends), default=1)
  far = min(far, 2.5 * max(map(abs, means), default=1)) or 1
  left, right = min([0, *ends]), max([0, *ends])
  ax.set_xlim(max(left, -far) - 0.12 * far, min(right, far) + 0.12 * far)
