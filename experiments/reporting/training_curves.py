"""Figure of the training loss by step."""

from collections.abc import Mapping

import numpy as np

from experiments.reporting import picture, style
from experiments.reporting.findings import Findings
from experiments.reporting.picture import Numbers, Picture
from experiments.reporting.style import FONT, INK


def training_curves(findings: Findings, group: str) -> Picture | None:
  """Draws the loss by step, mean and range of the seeds; None without any log."""
  runs = [run for run in findings.sweep.of(group) if run.losses]
  if not runs:
    return None
  bands = {run.label: _band(run.losses) for run in runs}
  named = style.leading(findings, group)
  every_run, runs = len(runs), [run for run in runs if run.label in named]
  looks = style.styles(findings)
  ends: dict[str, tuple[float, float]] = {}
  figure, ax, _ = style.blank(style.text_lines([run.label for run in runs]))
  drawn: list[float] = []
  for run in runs:
    steps, low, mean, high = bands[run.label]
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
  caption += style.left_out(len(runs), every_run)
  numbers = Numbers(
    ("variant", "step", "lowest", "mean", "highest"),
    [(label, *row) for label, band in bands.items() for row in zip(*band, strict=True)],
  )
  file = picture.file_name("training_curves", group)
  return picture.finish(figure, file, title, caption, numbers)


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
