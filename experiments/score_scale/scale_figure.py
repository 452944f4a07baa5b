"""Figure of the scale of attention scores: four panels against the width of heads."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.reporting import panels, picture, style
from experiments.reporting.picture import Numbers, Picture
from experiments.reporting.statistics import estimate
from experiments.reporting.style import FONT
from experiments.reporting.text import measure_name, number, plus_minus
from experiments.score_scale.scale_measures import ScaleCurves

NAME = "score_scale"
CAPTION = (
  "Against the width d of heads, for each factor on q · k. Points: models before"
  " training, mean of the seeds; crosses: standard normal queries and keys; lines in"
  " the first panel: the derivation, d^(1 - 2 power). Last panel: trained models, with"
  " 95% intervals over seeds."
)
PANELS = {
  "variance": ("Variance of the scores", True),
  "entropy": ("Entropy of the weights, of log M", False),
  "jacobian": ("Jacobian of the softmax", False),
  "gradient": ("Gradient of query and key projections", True),
}


def draw(curves: Sequence[ScaleCurves]) -> Picture:
  """Returns the figure of the curves of some scales."""
  figure, axes = panels.panels(2, 3, (14.0, 7.6))
  looks = style.styles_of([x.label for x in curves])
  for ax, (name, (title, log)) in zip(axes, PANELS.items(), strict=False):
    for one in curves:
      look = looks[one.label]
      kwargs = look.marker_kwargs | {"linestyle": "-", "linewidth": 1.2}
      if name == "variance":
        ax.plot(one.widths, one.derived, color=look.color, linewidth=2, alpha=0.5)
        kwargs["linestyle"] = "none"
      ax.plot(one.widths, one.model[name].mean(0), label=one.label, **kwargs)
      if name != "gradient":  # they have no loss
        ax.plot(one.widths, one.gaussian[name].mean(0), "x", color=look.color, ms=9)
    if log:
      panels.log_axis(ax)
    panels.words(ax, title, "width of a head, d")
  *_, trained, key = axes
  _trained(trained, curves, looks)
  for ax in axes[:-1]:
    ax.set_xscale("log", base=2)
    widths = curves[0].widths
    ax.set_xticks(widths, [str(d) for d in widths])
    ax.set_xlim(min(widths) / 1.2, max(widths) * 1.2)
  key.axis("off")
  lines, labels = axes[0].get_legend_handles_labels()
  key.legend(
    lines, labels, frameon=False, fontsize=FONT + 1, loc="center", title="scale"
  )
  panels.settle(figure)
  numbers = Numbers(("measure", "scale", "width", "seed", "value"), _rows(curves))
  return picture.finish(figure, NAME, "The scale of scores", CAPTION, numbers)


def write(folder: Path, curves: Sequence[ScaleCurves]) -> Iterator[Path]:
  """Yields the files of the figure as they are written."""
  folder.mkdir(parents=True, exist_ok=True)
  for kind, content in draw(curves).files.items():
    path = folder / f"{NAME}.{kind}"
    path.write_bytes(content)
    yield path


def lines(curves: Sequence[ScaleCurves]) -> Iterator[str]:
  """Yields the lines of a Markdown table: a scale and a width in each."""
  measure = next((measure_name(x.measure) for x in curves if x.measure), "trained")
  names = ["scale", "d", "derived variance", *PANELS, measure]
  yield f"| {' | '.join(names)} |"
  yield "|" + "---|" * len(names)
  for one in curves:
    for n, width in enumerate(one.widths):
      found = [number(one.model[name][:, n].mean()) for name in PANELS]
      trained = one.trained.get(width)
      score = plus_minus(estimate(trained)) if trained else "–"
      derived = number(one.derived[n])
      yield f"| {one.label} | {width} | {derived} | {' | '.join(found)} | {score} |"


def _trained(ax: Any, curves: Sequence[ScaleCurves], looks: Any) -> None:
  """Draws the scores of trained models, with intervals."""
  measure = next((measure_name(x.measure) for x in curves if x.measure), "")
  if not measure:  # no run is finished
    ax.axis("off")
    return
  for one in curves:
    widths, look = sorted(one.trained), looks[one.label]
    found = [estimate(one.trained[d]) for d in widths]
    half = [x.half or 0.0 for x in found]
    mean = [x.mean for x in found]
    ax.errorbar(widths, mean, half, capsize=3, **look.line_kwargs)
    ax.plot(widths, mean, linestyle="none", **look.marker_kwargs)
  panels.words(ax, f"After training: {measure}", "width of a head, d")


def _rows(curves: Iterable[ScaleCurves]) -> Iterator[tuple[str, str, int, int, float]]:
  for one in curves:
    for kind, measures in (("model", one.model), ("normal", one.gaussian)):
      for name, x_SX in measures.items():
        for (seed, n), x in np.ndenumerate(x_SX):
          if np.isfinite(x):
            yield f"{name}, {kind}", one.label, one.widths[n], seed, float(x)
    for width, scores in one.trained.items():
      for seed, x in enumerate(scores):
        yield one.measure, one.label, width, seed, float(x)
