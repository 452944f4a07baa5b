"""The searches of a tuned sweep: scores against the values tried, choices, cost."""

from collections.abc import Mapping, Sequence

from experiments.reporting import picture, style
from experiments.reporting.findings import Findings
from experiments.reporting.loaded_run import LoadedRun
from experiments.reporting.picture import Numbers, Picture
from experiments.reporting.report_table import Table
from experiments.reporting.style import FONT, INK, Style
from experiments.reporting.text import count, listed, measure_name, number
from experiments.setup.tuning import SPLIT, Tuned

Searches = dict[str, Tuned]


def searches(findings: Findings, group: str) -> Searches:
  """Returns {label: its search} of a group's tuned runs."""
  runs = [run for run in findings.sweep.of(group) if not run.again_of]
  return {run.label: run.tuned for run in runs if run.tuned}


def summary(runs: Sequence[LoadedRun]) -> str:
  """Returns what was tuned, over how many values, and which choices lie at an edge."""
  found = {run.label: run.tuned for run in runs if run.tuned}
  first = next(iter(found.values()))
  seeds = len(first.trials[0].scores)
  text = (
    f"{listed([*first.chosen])}: each variant had the same {len(first.trials)} values,"
    f" {seeds} seed{'s' * (seeds > 1)}, chosen on the {SPLIT} split; scores here are of"
    " other seeds, on the test split"
  )
  untuned = [run.label for run in runs if not run.tuned]
  text += f"; not tuned: {listed(untuned)}" if untuned else ""
  edges = [label for label, tuned in found.items() if tuned.edges]
  return text + (f"; at an edge of what was tried: {listed(edges)}" if edges else "")


def tuning_table(findings: Findings, group: str) -> Table:
  """Returns each variant's chosen values, their score, and the cost of the search."""
  found = searches(findings, group)
  keys = list(dict.fromkeys(key for tuned in found.values() for key in tuned.chosen))
  measures = {tuned.measure: tuned.better for tuned in found.values()}
  rows = [
    (
      label,
      *(str(tuned.chosen.get(key, "–")) for key in keys),
      number(tuned.best.mean),
      "yes" if tuned.edges else "no",
      str(len(tuned.trials)),
      f"{sum(trial.seconds for trial in tuned.trials):.0f}",
      count(sum(trial.flops for trial in tuned.trials) or None),
    )
    for label, tuned in found.items()
  ]
  score = " or ".join(map(measure_name, measures))
  header = ("variant", *keys, f"{SPLIT} {score}", "at an edge", "runs", "s", "FLOPs")
  title = f"{group}: what the search chose, and its cost"
  return Table(f"tuning_{group}", title, header, tuple(rows), tuple(_notes(found)))


def to_csv(findings: Findings) -> str:
  """Returns a line for each group, variant, trial and seed; "" without a search.

  Seconds and FLOPs are those of a trial, all its seeds.
  """
  searched = {group: searches(findings, group) for group in findings.sweep.groups}
  tuned = [x for found in searched.values() for x in found.values()]
  keys = list(dict.fromkeys(key for each in tuned for key in each.chosen))
  rows = [
    (group, label, *map(trial.values.get, keys), each.measure, SPLIT, seed, score)
    + (trial.values == each.chosen, trial.seconds, trial.flops or None, trial.id)
    for group, found in searched.items()
    for label, each in found.items()
    for trial in each.trials
    for seed, score in trial.scores.items()
  ]
  names = ("group", "variant", *keys, "measure", "split", "seed", "score", "chosen")
  return Numbers([*names, "seconds", "flops", "run"], rows).to_csv() if rows else ""


def _notes(found: Searches) -> list[str]:
  """Returns the warnings on choices at an edge, and on trials without a score."""
  notes = []
  if edges := [label for label, tuned in found.items() if tuned.edges]:
    notes.append(
      f"The best value of {listed(edges)} is the smallest or the largest that was"
      " tried: a wider search may favour other variants."
    )
  lost = {
    label: sum(trial.mean is None for trial in tuned.trials)
    for label, tuned in found.items()
  }
  cells = [f"{label} ({n} of its runs)" for label, n in lost.items() if n]
  return [*notes, *([f"Diverged or undefined: {listed(cells)}."] if cells else [])]


def axis(found: Searches) -> str | None:
  """Returns the first tuned key with two positive numbers; None: nothing to draw."""
  for key in dict.fromkeys(key for tuned in found.values() for key in tuned.chosen):
    values = {t.values.get(key) for tuned in found.values() for t in tuned.trials}
    numbers = [x for x in values if isinstance(x, int | float) and x > 0]
    if len(numbers) == len(values) > 1:
      return key
  return None


def best_by(tuned: Tuned, key: str) -> dict[float, float]:
  """Returns {value of a key: best mean over the other keys}, by growing value."""
  best: dict[float, float] = {}
  choose = min if tuned.better == "lower" else max
  for trial in tuned.trials:
    if (mean := trial.mean) is not None:
      value = trial.values[key]
      best[value] = choose(mean, best.get(value, mean))
  return dict(sorted(best.items()))


def tuning_curves(findings: Findings, group: str) -> Picture | None:
  """Draws each variant's score against the value tried; None without a search."""
  found = searches(findings, group)
  if (key := axis(found)) is None:
    return None
  curves = {label: best_by(tuned, key) for label, tuned in found.items()}
  figure, ax, _ = style.blank(style.text_lines(curves))
  looks = style.styles(findings)
  for label, curve in curves.items():
    _draw(ax, curve, found[label].chosen[key], looks[label])
  ticks = sorted({value for curve in curves.values() for value in curve})
  ax.set_xscale("log")
  ax.set_xticks(ticks, [f"{value:g}" for value in ticks])
  ax.set_xticks([], minor=True)
  ax.set_xlabel(key, fontsize=FONT, color=INK)
  ends = {label: [*curve.items()][-1] for label, curve in curves.items() if curve}
  style.name_ends(ax, ends, looks)
  first = next(iter(found.values()))
  name, argument = measure_name(first.measure), key.rpartition(".")[2]
  title = f"{group}: {name} by {argument}"
  seeds = len(first.trials[0].scores)
  drawn = f"mean of {seeds} seed{'s' * (seeds > 1)} on the {SPLIT} split"
  style.heading(ax, title, f"{first.better} is better; {drawn}; ring: chosen")
  caption = (
    f"{name} ({first.better} is better) of the search against {key}, {drawn}. A ring"
    " marks the chosen value."
  )
  file = picture.file_name("tuning_curves", group)
  return picture.finish(figure, file, title, caption, _numbers(found, key))


def _draw(ax, curve: Mapping[float, float], chosen: float, look: Style) -> None:
  x, y = [*curve], [*curve.values()]
  ax.plot(x, y, zorder=3, **look.line_kwargs)
  ax.plot(x, y, zorder=4, linestyle="none", **look.marker_kwargs)
  if chosen in curve:
    ring = {"markerfacecolor": "none", "markeredgecolor": look.color}
    ax.plot(chosen, curve[chosen], "o", markersize=16, mew=2, zorder=5, **ring)


def _numbers(found: Searches, key: str) -> Numbers:
  rows = [
    (label, trial.values[key], seed, score, trial.values == tuned.chosen, trial.id)
    for label, tuned in found.items()
    for trial in tuned.trials
    for seed, score in trial.scores.items()
  ]
  return Numbers(["variant", key, "seed", "score", "chosen", "run"], rows)
