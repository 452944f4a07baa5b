"""Rollouts in a report: returns of a group's players, and return by target return."""

from typing import Any

from experiments.reporting import picture, style
from experiments.reporting.findings import Findings
from experiments.reporting.line_curves import LineChart, draw_curves
from experiments.reporting.loaded_run import LoadedRun
from experiments.reporting.picture import Picture
from experiments.reporting.text import listed


def players(findings: Findings, group: str) -> list[LoadedRun]:
  """Returns the finished runs of a group whose models played episodes."""
  runs = findings.sweep.of(group)
  return [run for run in runs if (run.fact("written") or {}).get("kind") == "rollouts"]


def notes(runs: list[LoadedRun], facts: dict[str, Any]) -> list[str]:
  """Returns notes on who played the data, and how the models' returns were made.

  runs    of one group, which play one problem
  facts   those of the first run
  """
  best = facts["players"]["data"][2]
  others = [
    f"{name} {mean:.1f} ± {spread:.1f}"
    for name, (mean, spread, _) in facts["players"].items()
  ]
  made = [
    f"Returns of those who played the data (mean ± standard deviation of episodes;"
    f" in brackets, how often the action is random): {listed(others)}. The best"
    f" episode of the data has {best:.1f}.",
    f"`return` is the mean over {facts['texts']} episodes under the highest target,"
    f" {facts['targets'][-1]:.1f}; `target_error` the mean distance of the mean return"
    f" from {len(facts['targets'])} targets from {facts['targets'][0]:.1f} on."
    f" {facts['signatures'][0]}, {facts['search']}.",
  ]
  below = [run.label for run in runs if any(run.fact("written")["below"])]
  if below:
    made.append(f"No better than random actions, in one seed or more: {listed(below)}.")
  return made


def return_curves(findings: Findings, group: str) -> Picture | None:
  """Draws the return by target return, mean and range of seeds; None without any."""
  runs = players(findings, group)
  if not runs:
    return None
  facts = runs[0].fact("written")
  target_T, named = facts["targets"], style.leading(findings, group)
  mean = facts["floors"]["the data"]["return"]
  curves = {
    run.label: (target_T, played)
    for run in runs
    if run.label in named and (played := _finite(run))
  }
  if not curves:
    return None
  caption = (
    "Return of episodes by the return that the model is conditioned on. Dashed: what is"
    " asked for; level: the mean of the data."
  )
  chart = LineChart(
    curves,
    x="target return",
    y="return",
    title=f"{group}: return by target return",
    file=picture.file_name("returns", group),
    caption=caption + style.left_out(len(curves), len(runs)),
    guides={
      "the target": (target_T, target_T),
      "mean of the data": (target_T, [mean] * len(target_T)),
    },
    dashed="the target, the data's mean",
  )
  return draw_curves(chart, style.styles(findings))


def _finite(run: LoadedRun) -> list[list[float]]:
  """Returns the mean returns by target of the seeds that have all of them."""
  return [seed for seed in run.fact("written")["curves"] if None not in seed]
