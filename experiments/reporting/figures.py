"""The three figures of a group: scores by length, differences, losses by step."""

import numpy as np

from experiments.reporting import style, tables
from experiments.reporting.comparisons import Findings
from experiments.reporting.style import FAINT, FONT, INK, PAPER, SIGNS, Picture

CUT = " An arrow at the frame: the interval goes on; the tables have its ends."


def length_curves(findings: Findings, group: str, measure: str) -> Picture:
  """Draws the mean by context length with its interval; gaps are named in a strip."""
  rows = findings.of(group, measure)
  looks, labels = style.styles(findings), list(dict.fromkeys(r.label for r in rows))
  by_label = {label: [row for row in rows if row.label == label] for label in labels}
  gaps = {
    label: [row for row in cells if not style.exact(row)]
    for label, cells in by_label.items()
  }
  gaps = {label: cells for label, cells in gaps.items() if cells}
  figure, ax, strip = style.blank(_lines(labels), _lines(gaps))
  one, ends = len(findings.lengths(group)) == 1, {}
  drawn = {}
  for place, (label, cells) in enumerate(by_label.items()):
    cells = [row for row in cells if row.estimate.mean is not None]
    if cells:
      x = np.array([place]) if one else np.log2([row.times for row in cells])
      _curve(ax, x, cells, looks[label])
      ends[label] = x[-1], cells[-1].estimate.mean
      drawn[label] = x, cells
  _scale(ax, rows)
  cut = _mark_cut(ax, drawn, looks)
  if one:
    _variant_axis(ax, strip, rows, labels)
  else:
    _length_axis(ax, strip, rows)
  style.name_ends(ax, {k: v for k, v in ends.items() if k not in gaps}, looks)
  if strip is not None:
    places = {label: place for place, label in enumerate(labels) if one}
    _gaps(strip, gaps, by_label, looks, places)
  better, name = rows[0].better, style.measure_name(measure)
  seeds = max(row.planned for row in rows)
  title = f"{group}: {name} by context length"
  shown = f"; {'bar' if one else 'band'}: 95% t interval"
  bands = shown if any(row.estimate.low for row in rows) else ""
  plural = "s" if seeds != 1 else ""
  style.heading(ax, title, f"{better} is better; mean of {seeds} seed{plural}{bands}")
  caption = f"{name} ({better} is better) by context length, mean over seeds{bands}."
  caption += CUT if cut else ""
  extra = "" if measure == next(iter(findings.measures(group))) else measure
  file = style.file_name("length_curves", group, extra)
  return style.finish(figure, file, title, caption)


def _mark_cut(ax, drawn, looks) -> bool:
  """Marks intervals that the frame cuts; returns whether there are any."""
  low, high = ax.get_ylim()
  beyond = False
  for label, (x, cells) in drawn.items():
    for at, row in zip(x, cells, strict=True):
      if row.estimate.low is not None:
        ends = row.estimate.low, row.estimate.high
        style.mark_cut(ax, "y", at, ends, looks[label].color)
        beyond |= ends[0] < low or ends[1] > high
  return beyond


def _variant_axis(ax, strip, rows, labels) -> None:
  """Gives each variant a tick of its own: with one length there is nothing to join."""
  bottom = ax if strip is None else strip
  ax.set_xlim(-0.6, len(labels) - 0.4)
  bottom.set_xticks(range(len(labels)), [""] * len(labels))
  times, length = rows[0].times, rows[0].length
  where = f"{style.multiple(times)} the trained length ({length})"
  bottom.set_xlabel(f"variants, at {where}", fontsize=FONT, color=INK)


def _curve(ax, x, cells, look) -> None:
  ax.plot(x, [row.estimate.mean for row in cells], zorder=3, **look.line_kwargs)
  for at, row in zip(x, cells, strict=True):
    hollow = {"markerfacecolor": PAPER, "markeredgecolor": look.color}
    face = {} if style.exact(row) else hollow
    ax.plot(at, row.estimate.mean, zorder=4, **look.marker_kwargs | face)
  mean = np.array([row.estimate.mean for row in cells])
  half = np.array([row.estimate.half or 0.0 for row in cells])
  if len(cells) > 1:
    low, high = mean - half, mean + half
    ax.fill_between(x, low, high, color=look.color, alpha=0.16, linewidth=0, zorder=2)
  elif half.any():
    ax.errorbar(x, mean, half, color=look.color, capsize=4, zorder=2)


def _scale(ax, rows) -> None:
  """Fits the axis to the means: one wide interval must not flatten every curve."""
  found = [row.estimate for row in rows if row.estimate.mean is not None]
  means = [estimate.mean for estimate in found] or [0.0, 1.0]
  if rows[0].better == "higher" and min(means) >= 0 and max(means) <= 1:
    ax.set_ylim(-0.04, 1.04)
    return
  room = max(np.ptp(means), 1e-3 * max(map(abs, means)), 1e-9)
  low = min([e.low for e in found if e.low is not None] + means)
  high = max([e.high for e in found if e.high is not None] + means)
  bottom = max(low, min(means) - 0.5 * room) - 0.06 * room
  ax.set_ylim(bottom, min(high, max(means) + 0.5 * room) + 0.06 * room)


def _length_axis(ax, strip, rows) -> None:
  times = sorted({row.times for row in rows})
  lengths = {row.times: row.length for row in rows}
  single = len({round(row.length / row.times) for row in rows}) == 1
  bottom = ax if strip is None else strip
  x = np.log2(times)
  margin = 0.04 * (x[-1] - x[0]) or 0.5
  ax.set_xlim(x[0] - margin, x[-1] + margin)
  names = [style.multiple(t) + (f"\n{lengths[t]}" if single else "") for t in times]
  bottom.set_xticks(x, names)
  bottom.set_xlabel(
    "context length, as multiples of the trained length", fontsize=FONT, color=INK
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


def _gaps(strip, gaps, by_label, looks, places) -> None:
  """Marks, variant by variant, the lengths without a full mean, and says why.

  places   where a variant is on an axis of variants; empty: the axis has lengths
  """
  tall = [style.wrap(label).count("\n") + 1 for label in gaps]
  middle = np.cumsum(tall) - np.array(tall) / 2
  strip.set_ylim(sum(tall), 0)
  strip.set_yticks([])
  for y, (label, cells) in zip(middle, gaps.items(), strict=True):
    look = looks[label]
    for row in by_label[label]:
      marker = look.marker if style.exact(row) else "x"
      x = places.get(label, np.log2(row.times))
      strip.plot(x, y, marker=marker, color=look.color, markersize=7, mew=2)
    x = places.get(label, np.log2(cells[0].times))
    kwargs = {"va": "center", "color": INK}
    verdicts = ", ".join(dict.fromkeys(row.verdict for row in cells))
    strip.annotate(
      verdicts, (x, y), (9, 0), textcoords="offset points", fontsize=FONT - 2, **kwargs
    )
    across = strip.get_yaxis_transform()
    strip.plot(1.055, y, transform=across, clip_on=False, **look.marker_kwargs)
    strip.text(1.085, y, style.wrap(label), transform=across, fontsize=FONT, **kwargs)


def differences(findings: Findings, group: str) -> Picture:
  """Draws each variant's paired difference from the baseline at the longest length."""
  baseline, (measure, better) = (
    findings.sweep.baseline,
    next(iter(findings.measures(group).items())),
  )
  length = findings.lengths(group)[-1]
  rows = [r for r in findings.at(group, length) if r.label != baseline]
  sign = 1 if better == "lower" else -1
  far = float("inf")
  rows.sort(key=lambda r: far if not r.difference.count else sign * r.difference.mean)
  labels = [row.label for row in rows]
  figure, ax, _ = style.blank(0)
  tall = np.array([max(1.5, style.wrap(label).count("\n") + 1) for label in labels])
  figure.set_figheight(max(2.6, 0.34 * tall.sum()) + 1.3)
  middle = np.cumsum(tall) - tall / 2
  ax.set_ylim(sum(tall), 0)
  ax.set_yticks(middle, [style.wrap(label) for label in labels], fontsize=FONT)
  ax.grid(False)
  ax.grid(True, axis="x", color=FAINT, linewidth=0.7)
  ax.axvline(0, color=INK, linewidth=1.2)
  for y, row in zip(middle, rows, strict=True):
    _difference(ax, y, row)
  _symmetric(ax, rows)
  wide = [
    (y, row)
    for y, row in zip(middle, rows, strict=True)
    if row.difference.low is not None
  ]
  for y, row in wide:
    ends = row.difference.low, row.difference.high
    style.mark_cut(ax, "x", y, ends, SIGNS.get(row.verdict, INK))
  name = style.measure_name(measure)
  ax.set_xlabel(f"{name}, difference from {baseline}", fontsize=FONT, color=INK)
  title = f"{group}: difference from {baseline} at {style.column(rows)}"
  side = "left" if better == "lower" else "right"
  how = f"{side} is better; bar: 95% t interval, paired by seed"
  style.heading(ax, title, how)
  caption = (
    f"{name} minus that of {baseline} at length {length}, paired by seed, with its 95%"
    f" interval. Filled: resolved after Holm's correction; hollow: did not resolve."
  )
  left, right = ax.get_xlim()
  cut = any(r.difference.low < left or r.difference.high > right for _, r in wide)
  caption += CUT if cut else ""
  file = style.file_name("differences", group)
  return style.finish(figure, file, title, caption)


def _difference(ax, y, row) -> None:
  """Draws one variant's difference and writes it, with the verdict, beside it."""
  color, said = SIGNS.get(row.verdict, INK), row.verdict
  if row.difference.count:
    said = f"{tables.plus_minus(row.difference, True)}\n{row.verdict}"
    mark = {"better": "o", "worse": "s"}.get(row.verdict, "D")
    face = color if row.verdict in SIGNS else PAPER
    kwargs = {"color": color, "markersize": 9, "markeredgewidth": 2}
    if row.difference.low is not None:
      ends = [row.difference.low, row.difference.high]
      ax.plot(ends, [y, y], color=color, linewidth=2.6, solid_capstyle="butt")
    ax.plot(row.difference.mean, y, marker=mark, markerfacecolor=face, **kwargs)
  ax.text(
    1.03,
    y,
    said,
    transform=ax.get_yaxis_transform(),
    va="center",
    color=INK,
    fontsize=FONT - 2,
    linespacing=1.1,
  )


def _symmetric(ax, rows) -> None:
  found = [row.difference for row in rows if row.difference.count]
  means = [abs(d.mean) for d in found]
  widths = [abs(d.mean) + d.half for d in found if d.half is not None]
  far = min(max(widths + means, default=1), 2.5 * max(means, default=1)) or 1
  left = min([0, *(d.mean - (d.half or 0) for d in found)])
  right = max([0, *(d.mean + (d.half or 0) for d in found)])
  ax.set_xlim(max(left, -far) - 0.12 * far, min(right, far) + 0.12 * far)


def training_curves(findings: Findings, group: str) -> Picture | None:
  """Draws the loss by step, mean and range of the seeds; None without any log."""
  runs = [run for run in findings.sweep.of(group) if run.losses]
  if not runs:
    return None
  looks, ends = style.styles(findings), {}
  figure, ax, _ = style.blank(_lines([run.label for run in runs]))
  drawn = []
  for run in runs:
    steps, low, mean, high = _band(run.losses)
    look = looks[run.label]
    ax.fill_between(steps, low, high, color=look.color, alpha=0.16, linewidth=0)
    ax.plot(steps, mean, **look.line_kwargs)
    every = max(1, len(steps) // 6)
    some = slice(len(ends) % every, None, every)
    ax.plot(steps[some], mean[some], linestyle="none", **look.marker_kwargs)
    seen = np.isfinite(mean)
    if seen.any():
      ends[run.label] = steps[seen][-1], mean[seen][-1]
      drawn += [*mean[seen]]
    if not seen.all() and seen.any():
      ax.plot(steps[seen][-1], mean[seen][-1], "x", color=look.color, ms=10, mew=3)
  if drawn:
    room = max(np.ptp(drawn), 1e-6)
    ax.set_ylim(min(drawn) - 0.05 * room, np.quantile(drawn, 0.995) + 0.05 * room)
  style.name_ends(ax, ends, looks)
  ax.set_xlabel("training step", fontsize=FONT, color=INK)
  title = f"{group}: training loss"
  style.heading(ax, title, "mean over seeds; band: lowest to highest seed")
  caption = "Training loss by step. A cross marks where a run diverged."
  file = style.file_name("training_curves", group)
  return style.finish(figure, file, title, caption)


def _band(losses):
  """Returns steps and the lowest, mean and highest loss over the seeds still finite."""
  steps = np.array(sorted({step for seed in losses.values() for step in seed}))
  table = np.array([[seed.get(s, np.nan) for s in steps] for seed in losses.values()])
  table = np.ma.masked_invalid(table)
  low, mean, high = table.min(0), table.mean(0), table.max(0)
  return (
    steps,
    *(np.ma.filled(row.astype(float), np.nan) for row in (low, mean, high)),
  )


def _lines(labels) -> int:
  return sum(style.wrap(label).count("\n") + 1 for label in labels)
