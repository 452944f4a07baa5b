"""Ladders of sizes: loss against FLOPs, and the winner at ten times the budget."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.reporting import comparable, picture, power_law, style
from experiments.reporting.budget import training_flops
from experiments.reporting.findings import Findings
from experiments.reporting.loaded_run import LoadedRun
from experiments.reporting.picture import Numbers, Picture
from experiments.reporting.power_law import FitError, LadderPoints, PowerLaw
from experiments.reporting.style import FAINT, FONT, INK
from experiments.reporting.text import count, listed, measure_name, number

FURTHER = 10.0  # times the largest budget: where the curves predict
ALPHA = 0.05
RAISED = "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"


@dataclasses.dataclass(frozen=True)
class Fits:
  """The curves of a ladder's variants.

  measure   headline measure; "1 - accuracy" where higher is better
  points    {label: scores}
  laws      {label: curve}
  reasons   {label: why it has no curve}
  largest   largest budget that any variant was trained with, in FLOPs

  >>> from experiments.reporting.power_law import fit
  >>> def law(offset):
  ...   return fit({(n, 0): (4.0**n, offset + 2 * 4.0 ** (-0.5 * n)) for n in range(6)})
  >>> laws = {"none": law(1.0), "rope": law(0.5)}
  >>> some = Fits("text", "loss", "none", {}, laws, {}, largest=4.0**5)
  >>> some.ranked, round(some.target)
  (['rope', 'none'], 10240)
  """

  name: str
  measure: str
  baseline: str | None
  points: Mapping[str, LadderPoints]
  laws: Mapping[str, PowerLaw]
  reasons: Mapping[str, str]
  largest: float

  @property
  def target(self) -> float:
    """Returns the budget of the predictions."""
    return FURTHER * self.largest

  @property
  def ranked(self) -> list[str]:
    """Returns the variants with a curve, the lowest prediction first."""
    return sorted(self.laws, key=lambda label: self.laws[label].predict(self.target))

  def gap(self, label: str, other: str, level: float) -> tuple[float, float]:
    """Returns the predicted difference and half its interval."""
    return power_law.difference(self.laws[label], self.laws[other], self.target, level)


def ladders(findings: Findings) -> list[Fits]:
  """Returns the fits of all ladders of a sweep."""
  runs = [run for run in findings.sweep.runs if run.ladder and not run.again_of]
  names = dict.fromkeys(run.ladder for run in runs)
  each = ([run for run in runs if run.ladder == name] for name in names)
  return [
    fits(name, some, findings.sweep.baseline)
    for name, some in zip(names, each, strict=True)
  ]


def fits(name: str, runs: list[LoadedRun], baseline: str | None) -> Fits:
  """Returns the curves of a ladder's runs."""
  measures = [run.fact("measures")[0] for run in runs if run.result]
  measure = measures[0]["name"] if measures else ""
  higher = bool(measures) and measures[0]["better"] == "higher"
  points: dict[str, dict] = {run.label: {} for run in runs}
  for run in runs:
    points[run.label] |= _points(run, measure, higher)
  laws, reasons = {}, refusals(runs)
  for label, some in points.items():
    if label in reasons:
      continue
    try:
      laws[label] = power_law.fit(some)
    except FitError as error:
      reasons[label] = str(error)
  budgets = (flops for some in points.values() for flops, _ in some.values())
  largest = max(budgets, default=0.0)
  shown = f"1 - {measure_name(measure)}" if higher else measure_name(measure)
  return Fits(name, shown, baseline, points, laws, reasons, largest)


def refusals(runs: list[LoadedRun]) -> dict[str, str]:
  """Returns {label: why it takes no part}: what keeps a run from verdicts, here too."""
  finished = [run for run in runs if run.result]
  if changed := comparable.changed(finished):
    return dict.fromkeys((run.label for run in runs), changed)
  lost = {run.label: run.group for run in finished if run.fact("diverged")}
  return {label: f"a seed diverged at {group}" for label, group in lost.items()}


def _points(run: LoadedRun, measure: str, higher: bool) -> LadderPoints:
  """Returns {(size, seed): (FLOPs, loss)} of one run, at the trained length."""
  flops = training_flops(run)
  if not run.result or not flops:
    return {}
  scores = run.values(run.result["train_length"], measure, "mean")
  return {
    (run.group, seed): (flops, 1 - score if higher else score)
    for seed, score in scores.items()
  }


def answer(fits: Fits) -> str:
  """Returns which variant wins at ten times the largest budget, or why none does."""
  where = f"At {FURTHER:g} times the largest budget ({count(fits.target)} FLOPs)"
  if len(fits.laws) < 2:
    reasons = dict.fromkeys(fits.reasons.values())
    why = f": {'; '.join(reasons)}" if reasons else ""
    return f"Which wins at {FURTHER:g} times the budget is not known{why}."
  best, *others = fits.ranked
  # The best against each other one: as many comparisons share the error.
  level = 1 - ALPHA / len(others)
  gaps = {label: fits.gap(label, best, level) for label in others}
  tied = [label for label, (gap, half) in gaps.items() if gap <= half]
  missing = _missing(fits)
  predicted = number(fits.laws[best].predict(fits.target))
  interval = f"{100 * level:.3g}% interval"
  if tied:
    gap, half = gaps[tied[0]]
    return (
      f"{where} no winner is resolved: {best} has the lowest prediction, not resolved"
      f" from {listed(tied)} ({tied[0]} {number(gap)} ± {number(half)} behind,"
      f" {interval})."
    ) + missing
  gap, half = gaps[others[0]]
  return (
    f"{where} {best} wins at the training length: {predicted} {fits.measure} by its"
    f" curve, {number(gap)} ± {number(half)} below the next, {others[0]} ({interval})."
  ) + missing


def _missing(fits: Fits) -> str:
  """Returns sentences on variants without a curve, and on missing sizes."""
  texts = [f"{label} has no curve: {why}." for label, why in fits.reasons.items()]
  sizes = dict.fromkeys(size for some in fits.points.values() for size, _ in some)
  for label in fits.laws:
    there = {size for size, _ in fits.points[label]}
    if absent := [str(size) for size in sizes if size not in there]:
      texts.append(f"{label} has no score at {listed(absent)}.")
  return "".join(f" {text}" for text in texts)


def ladder_figure(fits: Fits, findings: Findings) -> Picture | None:
  """Draws scores and curves by FLOPs, on to ten times the budget; None without any."""
  points = {label: some for label, some in fits.points.items() if some}
  if not points:
    return None
  looks, ends = style.styles(findings), {}
  figure, ax, _ = style.blank(style.text_lines(points))
  for label, some in points.items():
    flops, losses = zip(*some.values(), strict=True)
    ax.plot(flops, losses, linestyle="none", zorder=3, **looks[label].marker_kwargs)
    ends[label] = max(some.values())
    if law := fits.laws.get(label):
      x = np.geomspace(min(flops), fits.target)
      y = np.array([law.predict(each) for each in x])
      ax.plot(x, y, zorder=2, **looks[label].line_kwargs)
      half = law.half(law.slopes(fits.target))
      ax.errorbar(x[-1], y[-1], half, color=looks[label].color, capsize=4, zorder=2)
      ends[label] = float(x[-1]), float(y[-1])
  ax.set_xscale("log")
  drawn_flops = [flops for some in points.values() for flops, _ in some.values()]
  _label_budgets(ax, [*drawn_flops, *([fits.target] if fits.laws else [])])
  if fits.laws:
    ax.axvline(fits.largest, color=FAINT, linewidth=2, zorder=0)
    drawn = [loss for some in points.values() for _, loss in some.values()]
    room = np.ptp(drawn) or 1.0
    ax.set_ylim(min([*drawn, *(y for _, y in ends.values())]) - room / 4, None)
  ax.set_xlabel("FLOPs in training, each seed", fontsize=FONT, color=INK)
  style.name_ends(ax, ends, looks)
  title = f"{fits.name}: {fits.measure} by FLOPs"
  predicted = "; right of the bar: predicted" if fits.laws else ""
  style.heading(ax, title, f"points: seeds{predicted}")
  caption = f"{fits.measure} against the FLOPs of training, one point for each seed"
  if fits.laws:
    caption += (
      f", and the fitted power laws up to {FURTHER:g} times the largest budget, with"
      " 95% intervals there"
    )
  file = picture.file_name("ladder", fits.name)
  return picture.finish(figure, file, title, f"{caption}.", _numbers(fits))


def _label_budgets(ax: Any, flops: Sequence[float]) -> None:
  """Labels powers of ten; where fewer than two are in view, the ends of the budgets.

  flops   of the points and the predictions
  """
  low, high = min(flops), max(flops)
  if math.floor(math.log10(high)) <= math.ceil(math.log10(low)):
    ax.set_xticks([low, high] if high > 2 * low else [high])
  ax.xaxis.set_major_formatter(lambda x, _: scientific(x))
  ax.xaxis.set_minor_formatter(lambda x, _: "")


def scientific(x: float) -> str:
  """Returns a number with a power of ten: figures draw no mathematics, but text.

  >>> scientific(1e12), scientific(2.04e9)
  ('10¹²', '2.0·10⁹')
  """
  digits, exponent = f"{x:.1e}".split("e")
  power = "10" + str(int(exponent)).translate(str.maketrans("-0123456789", RAISED))
  return power if digits == "1.0" else f"{digits}·{power}"


def _numbers(fits: Fits) -> Numbers:
  rows = [
    (label, size, seed, flops, loss)
    for label, some in fits.points.items()
    for (size, seed), (flops, loss) in some.items()
  ]
  return Numbers(["variant", "size", "seed", "flops", fits.measure], rows)
