"""Ladders of sizes: loss against FLOPs, and the winner at ten times the budget."""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from experiments.reporting import picture, power_law, style
from experiments.reporting.budget import training_flops
from experiments.reporting.findings import Findings
from experiments.reporting.loaded_run import LoadedRun
from experiments.reporting.picture import Numbers, Picture
from experiments.reporting.power_law import FitError, LadderPoints, PowerLaw
from experiments.reporting.style import FAINT, FONT, INK
from experiments.reporting.text import count, listed, measure_name, number

FURTHER = 10.0  # times the largest budget: how far the curves are asked
ALPHA = 0.05


@dataclasses.dataclass(frozen=True)
class Fits:
  """The curves of a ladder's variants.

  measure   headline measure; "1 - accuracy" where higher is better
  points    {label: scores}
  laws      {label: curve}
  reasons   {label: why it has no curve}
  largest   largest budget that every variant with a curve was trained with, in FLOPs

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
    """Returns the budget that is asked for."""
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
  laws, reasons = {}, {}
  for label, some in points.items():
    try:
      laws[label] = power_law.fit(some)
    except FitError as error:
      reasons[label] = str(error)
  largest = min((float(law.flops_N.max()) for law in laws.values()), default=0.0)
  shown = f"1 - {measure_name(measure)}" if higher else measure_name(measure)
  return Fits(name, shown, baseline, points, laws, reasons, largest)


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
    return f"Which wins at {FURTHER:g} times the budget cannot be told{why}."
  best, *others = fits.ranked
  # The best against each other one: as many comparisons share the error.
  level = 1 - ALPHA / len(others)
  gaps = {label: fits.gap(label, best, level) for label in others}
  tied = [label for label, (gap, half) in gaps.items() if gap <= half]
  missing = f" Without a curve: {listed([*fits.reasons])}." if fits.reasons else ""
  predicted = number(fits.laws[best].predict(fits.target))
  if tied:
    gap, half = gaps[tied[0]]
    return (
      f"{where} the winner cannot be told: {listed([best, *tied])} are not resolved"
      f" from each other ({tied[0]} {number(gap)} ± {number(half)} behind {best})."
    ) + missing
  gap, half = gaps[others[0]]
  return (
    f"{where} {best} wins at the training length: {predicted} {fits.measure} by its"
    f" curve, {number(gap)} ± {number(half)} below the next, {others[0]}."
  ) + missing


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
  ax.xaxis.set_major_formatter(lambda x, _: power_of_ten(x))
  if fits.laws:
    ax.axvline(fits.largest, color=FAINT, linewidth=2, zorder=0)
    drawn = [loss for some in points.values() for _, loss in some.values()]
    room = np.ptp(drawn) or 1.0
    ax.set_ylim(min([*drawn, *(y for _, y in ends.values())]) - room / 4, None)
  ax.set_xlabel("FLOPs in training, each seed", fontsize=FONT, color=INK)
  style.name_ends(ax, ends, looks)
  title = f"{fits.name}: {fits.measure} by FLOPs"
  style.heading(ax, title, "points: seeds; right of the bar: predicted")
  caption = (
    f"{fits.measure} against the FLOPs of training, one point for each seed, and the"
    f" fitted power laws up to {FURTHER:g} times the largest budget, with 95% intervals"
    " there."
  )
  file = picture.file_name("ladder", fits.name)
  return picture.finish(figure, file, title, caption, _numbers(fits))


def power_of_ten(x: float) -> str:
  """Returns a number as a power of ten: figures draw no mathematics, but text.

  >>> power_of_ten(1e12)
  '10¹²'
  """
  exponent = str(round(math.log10(x)))
  return "10" + exponent.translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _numbers(fits: Fits) -> Numbers:
  rows = [
    (label, size, seed, flops, loss)
    for label, some in fits.points.items()
    for (size, seed), (flops, loss) in some.items()
  ]
  return Numbers(["variant", "size", "seed", "flops", fits.measure], rows)
