"""Figures of several panels: blank axes in the report's style, and their layout."""

from typing import Any

from experiments.reporting.style import FAINT, FONT, INK


def panels(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, list[Any]]:
  """Returns a figure and its axes, row by row.

  size   width and height, in inches
  """
  import matplotlib
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  matplotlib.rcParams["text.parse_math"] = False
  figure = Figure(figsize=size, layout="constrained")
  FigureCanvasAgg(figure)
  return figure, list(figure.subplots(rows, columns, squeeze=False).ravel())


def words(ax: Any, title: str, x: str, y: str = "") -> None:
  """Writes title and names of the axes, in the report's style."""
  ax.set_title(title, loc="left", fontsize=FONT, fontweight="bold", color=INK)
  ax.set_xlabel(x, fontsize=FONT - 1, color=INK)
  ax.set_ylabel(y, fontsize=FONT - 1, color=INK)
  ax.tick_params(colors=INK, labelsize=FONT - 2, length=0)
  ax.grid(True, color=FAINT, linewidth=0.6)
  ax.set_axisbelow(True)
  for side, spine in ax.spines.items():
    spine.set_visible(side == "bottom")
    spine.set_color(FAINT)


def settle(figure: Any) -> None:
  """Fixes the layout: a figure is measured before it is drawn."""
  figure.draw_without_rendering()
  figure.set_layout_engine("none")


def log_axis(ax: Any) -> None:
  """Makes the axis of values logarithmic, with powers of ten as plain numbers."""
  from matplotlib.ticker import FuncFormatter, NullLocator

  ax.set_yscale("log")
  ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
  ax.yaxis.set_minor_locator(NullLocator())
