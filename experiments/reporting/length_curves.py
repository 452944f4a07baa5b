"""Figure of a group's scores by context length."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.reporting import levels, picture, style
from experiments.reporting.findings import Comparison, Findings
from experiments.reporting.picture import Numbers, Picture
from experiments.reporting.style import FAINT, FONT, INK, PAPER, Style
from experiments.reporting.text import measure_name, multiple

Points = tuple[np.ndarray, list[Comparison]]  # x of each comparison with a mean


def length_curves(findings: Findings, group: str, measure: str) -> Picture:
  """Draws the mean by context length with its interval; gaps are named in a strip."""
  compared = findings.of(group, measure)
  numbers, every = _numbers(compared), len({c.label for c in compared})
  named = style.leading(findings, group, measure)
  compared = [c for c in compared if c.label in named]
  labels = list(dict.fromkeys(c.label for c in compared))
  by_label = {label: [c for c in compared if c.label == label] for label in labels}
  looks, gaps = style.styles(findings), _incomplete(by_label)
  figure, ax, strip = style.blank(style.text_lines(labels), style.text_lines(gaps))
  one = len(findings.lengths(group)) == 1
  places = dict(zip(labels, range(len(labels)), strict=True)) if one else {}
  drawn = _curves(ax, by_label, looks, places)
  _scale(ax, compared)
  _levels(ax, compared, one)
  cut = _mark_cut(ax, drawn, looks)
  if one:
    _variant_axis(ax, strip, compared, labels)
  else:
    _length_axis(ax, strip, compared, findings.length_name(group))
  ends = {
    label: (x[-1], mean)
    for label, (x, scored) in drawn.items()
    if label not in gaps and (mean := scored[-1].estimate.mean) is not None
  }
  style.name_ends(ax, ends, looks)
  if strip is not None:
    _gaps(strip, gaps, by_label, looks, places)
  better, name = compared[0].better, measure_name(measure)
  intervals = f"; {'bar' if one else 'band'}: 95% t interval"
  intervals = intervals if any(c.estimate.interval for c in compared) else ""
  length = findings.length_name(group)
  title = f"{group}: {name} by {length}"
  style.heading(ax, title, f"{better} is better; {_seeds(compared)}{intervals}")
  caption = f"{name} ({better} is better) by {length}, mean over seeds{intervals}."
  if named_levels := levels.sentence(compared):
    caption += f" {named_levels}"
  caption += style.CUT if cut else ""
  caption += style.left_out(len(labels), every)
  extra = "" if measure == next(iter(findings.measures(group))) else measure
  file = picture.file_name("length_curves", group, extra)
  return picture.finish(figure, file, title, caption, numbers)


def _numbers(compared: list[Comparison]) -> Numbers:
  names = "variant length times_trained measure seeds mean low high verdict chance"
  rows = [
    (c.label, c.length, c.times, c.measure, c.estimate.count)
    + (c.estimate.mean, c.estimate.low, c.estimate.high, c.verdict, c.chance)
    for c in compared
  ]
  return Numbers(names.split(), rows)


def _seeds(compared: list[Comparison]) -> str:
  counts = sorted({c.planned for c in compared if c.planned} or {0})
  ends = " to ".join(map(str, dict.fromkeys([counts[0], counts[-1]])))
  return f"mean of {ends} seed{'s' if counts[-1] != 1 else ''}"


def _curves(
  ax,
  by_label: Mapping[str, list[Comparison]],
  looks: Mapping[str, Style],
  places: Mapping[str, int],
) -> dict[str, Points]:
  """Draws the curve of each variant that has means; returns their points.

  by_label   comparisons of each variant, by growing length
  looks      styles, by label
  places     x of a variant on an axis of variants; empty: the axis has lengths
  """
  drawn: dict[str, Points] = {}
  for label, variant in by_label.items():
    if scored := [c for c in variant if c.estimate.mean is not None]:
      x = np.array([places[label]]) if places else np.log2([c.times for c in scored])
      _curve(ax, x, scored, looks[label])
      drawn[label] = x, scored
  return drawn


def _incomplete(
  by_label: Mapping[str, list[Comparison]],
) -> dict[str, list[Comparison]]:
  """Returns {label: comparisons without a mean of all seeds}.

  Labels that have none are left out.
  """
  gaps = {
    label: [c for c in variant if not c.complete] for label, variant in by_label.items()
  }
  return {label: variant for label, variant in gaps.items() if variant}


def _mark_cut(ax, drawn: Mapping[str, Points], looks: Mapping[str, Style]) -> bool:
  """Marks intervals that the frame cuts; returns whether there are any."""
  low, high = ax.get_ylim()
  beyond = False
  for label, (x, scored) in drawn.items():
    for at, comparison in zip(x, scored, strict=True):
      if ends := comparison.estimate.interval:
        style.mark_cut(ax, "y", at, ends, looks[label].color)
        beyond |= ends[0] < low or ends[1] > high
  return beyond


def _variant_axis(ax, strip, compared: list[Comparison], labels: list[str]) -> None:
  """Gives each variant a tick: with one length there are no curves."""
  bottom = ax if strip is None else strip
  ax.set_xlim(-0.6, len(labels) - 0.4)
  bottom.set_xticks(range(len(labels)), [""] * len(labels))
  times, length = compared[0].times, compared[0].length
  where = f"{multiple(times)} the training length ({length})"
  bottom.set_xlabel(f"variants, at {where}", fontsize=FONT, color=INK)


def _curve(ax, x: np.ndarray, scored: list[Comparison], look: Style) -> None:
  """Draws means with their intervals; one of fewer seeds than planned is hollow."""
  ax.plot(x, [c.estimate.mean for c in scored], zorder=3, **look.line_kwargs)
  for at, comparison in zip(x, scored, strict=True):
    hollow = {"markerfacecolor": PAPER, "markeredgecolor": look.color}
    face = {} if comparison.complete else hollow
    ax.plot(at, comparison.estimate.mean, zorder=4, **look.marker_kwargs | face)
  ends = [c.estimate.interval or (c.estimate.mean,) * 2 for c in scored]
  low, high = np.array(ends, np.float64).T
  if len(scored) > 1:
    ax.fill_between(x, low, high, color=look.color, alpha=0.16, linewidth=0, zorder=2)
  elif (high > low).any():
    mean = np.array([c.estimate.mean for c in scored])
    around = [mean - low, high - mean]
    ax.errorbar(x, mean, around, color=look.color, capsize=4, zorder=2)


def _scale(ax, compared: list[Comparison]) -> None:
  """Fits the axis to the means: one wide interval must not flatten every curve."""
  estimates = [c.estimate for c in compared if c.estimate.mean is not None]
  means = [mean for e in estimates if (mean := e.mean) is not None] or [0.0, 1.0]
  if compared[0].better == "higher" and min(means) >= 0 and max(means) <= 1:
    ax.set_ylim(-0.04, 1.04)
    return
  room = max(np.ptp(means), 1e-3 * max(map(abs, means)), 1e-9)
  low = min([e.low for e in estimates if e.low is not None] + means)
  high = max([e.high for e in estimates if e.high is not None] + means)
  bottom = max(low, min(means) - 0.5 * room) - 0.06 * room
  ax.set_ylim(bottom, min(high, max(means) + 0.5 * room) + 0.06 * room)


def _levels(ax, compared: list[Comparison], one: bool) -> None:
  """Draws thin dashed lines, with their names, at chance and at the best value.

  one   whether the axis has variants, at one length
  """
  low, high = ax.get_ylim()
  times = {c.length: c.times for c in compared}
  kwargs = {"color": INK, "linewidth": 0.8, "linestyle": (0, (6, 4)), "alpha": 0.6}
  for name, by_length in levels.levels(compared).items():
    inside = {n: y for n, y in sorted(by_length.items()) if low <= y <= high}
    if not inside:
      continue
    values = [*inside.values()]
    level = one or len({*values}) == 1
    if level:
      ax.axhline(values[-1], zorder=1, **kwargs)
    else:  # it may leave the axes before the last length
      ax.plot(np.log2([times[n] for n in by_length]), [*by_length.values()], **kwargs)
    ax.text(
      0.995 if level else np.log2(times[max(inside)]),
      values[-1],
      name,
      transform=ax.get_yaxis_transform() if level else ax.transData,
      ha="right",
      va="top" if name == levels.BEST else "bottom",
      fontsize=FONT - 3,
      color=INK,
    )


def _length_axis(ax, strip, compared: list[Comparison], name: str) -> None:
  times = sorted({c.times for c in compared})
  lengths = {c.times: c.length for c in compared}
  single = len({round(c.length / c.times) for c in compared}) == 1
  bottom = ax if strip is None else strip
  x = np.log2(times)
  margin = 0.04 * (x[-1] - x[0]) or 0.5
  ax.set_xlim(x[0] - margin, x[-1] + margin)
  names = [multiple(t) + (f"\n{lengths[t]}" if single else "") for t in times]
  bottom.set_xticks(x, names)
  bottom.set_xlabel(
    f"{name}, as multiples of that of training", fontsize=FONT, color=INK
  )
  ax.axvline(0, color=FAINT, linewidth=5, zorder=0)
  ax.annotate(
    "trained",
    (0, 0),
    (6, 5),
    xycoords=("data", "axes fraction"),
    textcoords="offset points",
    fontsize=FONT - 3,
    color=INK,
  )


def _gaps(
  strip,
  gaps: Mapping[str, list[Comparison]],
  by_label: Mapping[str, list[Comparison]],
  looks: Mapping[str, Style],
  places: Mapping[str, int],
) -> None:
  """Marks, variant by variant, the lengths without a mean of all seeds.

  strip      axes below those of the curves
  gaps       comparisons without a mean of all seeds, by label
  by_label   all comparisons, by label
  looks      styles, by label
  places     x of a variant on an axis of variants; empty: the axis has lengths
  """
  tall = [style.text_lines([label]) for label in gaps]
  middle = np.cumsum(tall) - np.array(tall) / 2
  strip.set_ylim(sum(tall), 0)
  strip.set_yticks([])
  for y, (label, cells) in zip(middle, gaps.items(), strict=True):
    look = looks[label]
    for comparison in by_label[label]:
      marker = look.marker if comparison.complete else "x"
      x = places.get(label, np.log2(comparison.times))
      strip.plot(x, y, marker=marker, color=look.color, markersize=7, mew=2)
    x = places.get(label, np.log2(cells[0].times))
    kwargs = {"va": "center", "color": INK}
    verdicts = ", ".join(dict.fromkeys(c.verdict for c in cells))
    left, right = strip.get_xlim()
    end = x > left + 0.8 * (right - left)  # where it would run into the label
    beside: dict[str, Any] = {"ha": "right" if end else "left", "fontsize": FONT - 2}
    beside |= {"xytext": (-9 if end else 9, 0), "textcoords": "offset points"}
    strip.annotate(verdicts, (x, y), **beside, **kwargs)
    across = strip.get_yaxis_transform()
    strip.plot(1.055, y, transform=across, clip_on=False, **look.marker_kwargs)
    strip.text(1.085, y, style.wrap(label), transform=across, fontsize=FONT, **kwargs)
