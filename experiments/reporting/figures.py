"""The three figures of a group: scores by length, differences, losses by step."""

from collections.abc import Iterable, Mapping

import numpy as np

from experiments.reporting import style
from experiments.reporting.comparisons import Finding, Findings, column
from experiments.reporting.style import FAINT, FONT, INK, PAPER, SIGNS, Picture, Style
from experiments.reporting.text import measure_name, multiple, plus_minus

CUT = " An arrow at the frame: the interval goes on; the tables have its ends."
Points = tuple[np.ndarray, list[Finding]]  # x of each row, and the rows


def length_curves(findings: Findings, group: str, measure: str) -> Picture:
  """Draws the mean by context length with its interval; gaps are named in a strip."""
  rows = findings.of(group, measure)
  looks, labels = style.styles(findings), list(dict.fromkeys(r.label for r in rows))
  by_label = {label: [row for row in rows if row.label == label] for label in labels}
  gaps = _incomplete(by_label)
  figure, ax, strip = style.blank(_lines(labels), _lines(gaps))
  one = len(findings.lengths(group)) == 1
  ends: dict[str, tuple[float, float]] = {}
  drawn: dict[str, Points] = {}
  for place, (label, variant) in enumerate(by_label.items()):
    means = [(row, m) for row in variant if (m := row.estimate.mean) is not None]
    if means:
      scored = [row for row, _ in means]
      x = np.array([place]) if one else np.log2([row.times for row in scored])
      _curve(ax, x, scored, looks[label])
      ends[label] = x[-1], means[-1][1]
      drawn[label] = x, scored
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
  better, name = rows[0].better, measure_name(measure)
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


def _incomplete(by_label: Mapping[str, list[Finding]]) -> dict[str, list[Finding]]:
  """Returns the rows without a mean of all seeds, of the variants that have some."""
  gaps = {
    label: [row for row in rows if not row.complete] for label, rows in by_label.items()
  }
  return {label: rows for label, rows in gaps.items() if rows}


def _mark_cut(ax, drawn: Mapping[str, Points], looks: Mapping[str, Style]) -> bool:
  """Marks intervals that the frame cuts; returns whether there are any."""
  low, high = ax.get_ylim()
  beyond = False
  for label, (x, rows) in drawn.items():
    for at, row in zip(x, rows, strict=True):
      if ends := row.estimate.interval:
        style.mark_cut(ax, "y", at, ends, looks[label].color)
        beyond |= ends[0] < low or ends[1] > high
  return beyond


def _variant_axis(ax, strip, rows: list[Finding], labels: list[str]) -> None:
  """Gives each variant a tick: with one length there are no curves."""
  bottom = ax if strip is None else strip
  ax.set_xlim(-0.6, len(labels) - 0.4)
  bottom.set_xticks(range(len(labels)), [""] * len(labels))
  times, length = rows[0].times, rows[0].length
  where = f"{multiple(times)} the training length ({length})"
  bottom.set_xlabel(f"variants, at {where}", fontsize=FONT, color=INK)


def _curve(ax, x: np.ndarray, cells: list[Finding], look: Style) -> None:
  """Draws means with their intervals; one of fewer seeds than planned is hollow."""
  ax.plot(x, [row.estimate.mean for row in cells], zorder=3, **look.line_kwargs)
  for at, row in zip(x, cells, strict=True):
    hollow = {"markerfacecolor": PAPER, "markeredgecolor": look.color}
    face = {} if row.complete else hollow
    ax.plot(at, row.estimate.mean, zorder=4, **look.marker_kwargs | face)
  mean = np.array([row.estimate.mean for row in cells])
  half = np.array([row.estimate.half or 0.0 for row in cells])
  if len(cells) > 1:
    low, high = mean - half, mean + half
    ax.fill_between(x, low, high, color=look.color, alpha=0.16, linewidth=0, zorder=2)
  elif half.any():
    ax.errorbar(x, mean, half, color=look.color, capsize=4, zorder=2)


def _scale(ax, rows: list[Finding]) -> None:
  """Fits the axis to the means: one wide interval must not flatten every curve."""
  scored = [row.estimate for row in rows if row.estimate.mean is not None]
  means = [mean for e in scored if (mean := e.mean) is not None] or [0.0, 1.0]
  if rows[0].better == "higher" and min(means) >= 0 and max(means) <= 1:
    ax.set_ylim(-0.04, 1.04)
    return
  room = max(np.ptp(means), 1e-3 * max(map(abs, means)), 1e-9)
  low = min([e.low for e in scored if e.low is not None] + means)
  high = max([e.high for e in scored if e.high is not None] + means)
  bottom = max(low, min(means) - 0.5 * room) - 0.06 * room
  ax.set_ylim(bottom, min(high, max(means) + 0.5 * room) + 0.06 * room)


def _length_axis(ax, strip, rows: list[Finding]) -> None:
  times = sorted({row.times for row in rows})
  lengths = {row.times: row.length for row in rows}
  single = len({round(row.length / row.times) for row in rows}) == 1
  bottom = ax if strip is None else strip
  x = np.log2(times)
  margin = 0.04 * (x[-1] - x[0]) or 0.5
  ax.set_xlim(x[0] - margin, x[-1] + margin)
  names = [multiple(t) + (f"\n{lengths[t]}" if single else "") for t in times]
  bottom.set_xticks(x, names)
  bottom.set_xlabel(
    "context length, as multiples of the training length", fontsize=FONT, color=INK
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
  gaps: Mapping[str, list[Finding]],
  by_label: Mapping[str, list[Finding]],
  looks: Mapping[str, Style],
  places: Mapping[str, int],
) -> None:
  """Marks, variant by variant, the lengths without a mean of all seeds.

  strip      axes below those of the curves
  gaps       the incomplete rows, by label
  by_label   all rows, by label
  looks      styles, by label
  places     x of a variant on an axis of variants; empty: the axis has lengths
  """
  tall = [style.wrap(label).count("\n") + 1 for label in gaps]
  middle = np.cumsum(tall) - np.array(tall) / 2
  strip.set_ylim(sum(tall), 0)
  strip.set_yticks([])
  for y, (label, cells) in zip(middle, gaps.items(), strict=True):
    look = looks[label]
    for row in by_label[label]:
      marker = look.marker if row.complete else "x"
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
  baseline = findings.sweep.baseline
  measure, better = next(iter(findings.measures(group).items()))
  length = findings.lengths(group)[-1]
  rows = [r for r in findings.at(group, length) if r.label != baseline]
  sign = 1 if better == "lower" else -1

  def loss(row: Finding) -> float:
    mean = row.difference.mean
    return float("inf") if mean is None else sign * mean

  rows.sort(key=loss)
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
  left, right = ax.get_xlim()
  cut = False
  for y, row in zip(middle, rows, strict=True):
    if ends := row.difference.interval:
      style.mark_cut(ax, "x", y, ends, SIGNS.get(row.verdict, INK))
      cut |= ends[0] < left or ends[1] > right
  name = measure_name(measure)
  ax.set_xlabel(f"{name}, difference from {baseline}", fontsize=FONT, color=INK)
  title = f"{group}: difference from {baseline} at {column(rows)}"
  side = "left" if better == "lower" else "right"
  how = f"{side} is better; bar: 95% t interval, paired by seed"
  style.heading(ax, title, how)
  caption = (
    f"{name} minus that of {baseline} at length {length}, paired by seed, with its 95%"
    f" interval. Filled: resolved after Holm's correction; hollow: did not resolve."
  )
  caption += CUT if cut else ""
  file = style.file_name("differences", group)
  return style.finish(figure, file, title, caption)


def _difference(ax, y: float, row: Finding) -> None:
  """Draws one variant's difference and writes it, with the verdict, beside it."""
  color, text = SIGNS.get(row.verdict, INK), row.verdict
  if row.difference.count:
    text = f"{plus_minus(row.difference, True)}\n{row.verdict}"
    mark = {"better": "o", "worse": "s"}.get(row.verdict, "D")
    face = color if row.verdict in SIGNS else PAPER
    kwargs = {"color": color, "markersize": 9, "markeredgewidth": 2}
    if ends := row.difference.interval:
      ax.plot([*ends], [y, y], color=color, linewidth=2.6, solid_capstyle="butt")
    ax.plot(row.difference.mean, y, marker=mark, markerfacecolor=face, **kwargs)
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


def _symmetric(ax, rows: list[Finding]) -> None:
  """Fits the axis to the differences and zero; a wide interval may be cut."""
  differences = [row.difference for row in rows]
  halves = [(mean, d.half or 0) for d in differences if (mean := d.mean) is not None]
  means = [abs(mean) for mean, _ in halves]
  widths = [abs(mean) + half for mean, half in halves]
  far = min(max(widths, default=1), 2.5 * max(means, default=1)) or 1
  left = min([0, *(mean - half for mean, half in halves)])
  right = max([0, *(mean + half for mean, half in halves)])
  ax.set_xlim(max(left, -far) - 0.12 * far, min(right, far) + 0.12 * far)


def training_curves(findings: Findings, group: str) -> Picture | None:
  """Draws the loss by step, mean and range of the seeds; None without any log."""
  runs = [run for run in findings.sweep.of(group) if run.losses]
  if not runs:
    return None
  looks = style.styles(findings)
  ends: dict[str, tuple[float, float]] = {}
  figure, ax, _ = style.blank(_lines([run.label for run in runs]))
  drawn: list[float] = []
  for run in runs:
    steps, low, mean, high = _band(run.losses)
    look = looks[run.label]
    ax.fill_between(steps, low, high, color=look.color, alpha=0.16, linewidth=0)
    ax.plot(steps, mean, **look.line_kwargs)
    every = max(1, len(steps) // 6)
    some = slice(len(ends) % every, None, every)
    ax.plot(steps[some], mean[some], linestyle="none", **look.marker_kwargs)
    finite = np.isfinite(mean)
    if finite.any():
      ends[run.label] = steps[finite][-1], mean[finite][-1]
      drawn += [*mean[finite]]
    if not finite.all() and finite.any():
      ax.plot(steps[finite][-1], mean[finite][-1], "x", color=look.color, ms=10, mew=3)
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


def _band(
  losses: Mapping[int, Mapping[int, float]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
  """Returns steps and the lowest, mean and highest loss over the finite seeds.

  losses   {seed: {step: loss}}
  """
  step_T = np.array(sorted({step for seed in losses.values() for step in seed}))
  loss_ST = np.array(
    [[seed.get(s, np.nan) for s in step_T] for seed in losses.values()]
  )
  finite_ST = np.ma.masked_invalid(loss_ST)
  low_T, mean_T, high_T = (
    np.ma.filled(value_T.astype(float), np.nan)
    for value_T in (finite_ST.min(0), finite_ST.mean(0), finite_ST.max(0))
  )
  return step_T, low_T, mean_T, high_T


def _lines(labels: Iterable[str]) -> int:
  """Returns the number of lines of text of wrapped labels."""
  return sum(style.wrap(label).count("\n") + 1 for label in labels)
