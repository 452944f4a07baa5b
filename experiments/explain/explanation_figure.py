"""Figure of attention as an explanation: four panels over texts and seeds."""

from typing import Any

import numpy as np

from experiments.explain.explaining import ExplanationStudy
from experiments.reporting import panels, picture, style
from experiments.reporting.picture import Numbers, Picture
from experiments.reporting.style import COLORS, FONT, INK

NAME = "explanation"
CAPTION = (
  "Top left: Kendall's tau of attention and of another importance, a count of texts."
  " Top right: how far the output moves under permuted weights, by the largest share."
  " Bottom left: divergence of adversarial weights with the same output, and of another"
  " seed's weights. Bottom right: how far outputs move, and from those of another seed;"
  " the box has the middle half."
)
LOG2 = float(np.log(2))


def draw(study: ExplanationStudy) -> Picture:
  """Returns the figure of a study."""
  figure, axes = panels.panels(2, 2, (10.5, 7.6))
  agree, permute, far, move = axes
  _histograms(
    agree,
    {
      "gradient × (input − mean)": study.value_SE["tau_gradient"],
      "leave-one-out": study.value_SE["tau_leave_one_out"],
    },
    -1,
    1,
  )
  panels.words(
    agree, "Does attention agree?", "Kendall's tau with the attention", "texts"
  )
  _by_class(permute, study)
  panels.words(permute, "Do permuted weights matter?", "largest share", "median TVD")
  names = {"adversarial": "adversarial", "seeds": "another seed"}
  present = {new: study.value_SE[x] for x, new in names.items() if x in study.value_SE}
  _histograms(far, present, 0, LOG2)
  panels.words(
    far, "How far are other weights?", "JSD from the model's (nats)", "texts"
  )
  _boxes(move, study.value_SE)
  panels.words(move, "How far do outputs move?", "TVD", "")
  panels.settle(figure)
  numbers = Numbers(("measure", "seed", "text", "value"), _numbers(study.value_SE))
  return picture.finish(figure, NAME, "Attention as an explanation", CAPTION, numbers)


def _histograms(
  ax: Any, values: dict[str, np.ndarray], low: float, high: float
) -> None:
  bins = np.linspace(low, high, 41)
  for (label, x_SE), color in zip(values.items(), COLORS, strict=False):
    x = x_SE[np.isfinite(x_SE)]
    ax.hist(x, bins, color=color, alpha=0.55, label=label)
    if x.size:
      ax.axvline(x.mean(), color=color, linewidth=2)
  ax.legend(frameon=False, fontsize=FONT - 2)


def _by_class(ax: Any, study: ExplanationStudy) -> None:
  """Draws a point for each seed and text, in the colour of its predicted class."""
  looks = style.styles_of(study.labels)
  for number, label in enumerate(study.labels):
    here = study.class_SE == number
    x, y = study.value_SE["largest"][here], study.value_SE["permuted"][here]
    look = looks[label]
    ax.plot(
      x,
      y,
      look.marker,
      color=look.color,
      ms=4,
      alpha=0.5,
      mew=0,
      label=style.wrap(label),
    )
  ax.set(xlim=(0, 1), ylim=(-0.02, 1))
  ax.legend(frameon=False, fontsize=FONT - 3)


def _boxes(ax: Any, value_SE: dict[str, np.ndarray]) -> None:
  names = {
    "permuted": "permuted",
    "uniform": "equal",
    "adversarial_moved": "adversarial",
    "seeds_moved": "another\nseed",
  }
  present = {new: value_SE[x].ravel() for x, new in names.items() if x in value_SE}
  drawn = ax.boxplot(
    list(present.values()),
    tick_labels=list(present),
    orientation="horizontal",
    flierprops={"marker": ".", "markersize": 3, "markeredgecolor": COLORS[0]},
    medianprops={"color": COLORS[1], "linewidth": 2},
  )
  for part in ("boxes", "whiskers", "caps"):
    for line in drawn[part]:
      line.set_color(INK)
  ax.invert_yaxis()
  ax.set_xlim(-0.02, 1)


def _numbers(value_SE: dict[str, np.ndarray]) -> Any:
  for name, x_SE in value_SE.items():
    for (seed, text), x in np.ndenumerate(x_SE):
      yield name, seed, text, float(x)
