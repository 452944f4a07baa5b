"""A finished figure: its files PNG, SVG, PDF and CSV, and the SVG of the page.

PNG is for slides, SVG and PDF for papers, CSV has the numbers. The same numbers give
the same bytes: no file has a date or a random id. The page's SVG takes its colours from
the page.
"""

import csv
import dataclasses
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

from experiments.reporting.style import COLORS, FAINT, INK, PAPER
from transformer_jax.untrusted import cell

# Files a fifth larger, in a third of the time that zlib takes by default.
FAST = {"pil_kwargs": {"compress_level": 3}}


@dataclasses.dataclass(frozen=True)
class Numbers:
  """Numbers that a figure shows, as a table with named columns.

  >>> Numbers(("step", "loss"), [(20, 3.5)]).to_csv()
  'step,loss\\n20,3.5\\n'
  """

  header: Sequence[str]
  rows: Iterable[Sequence[Any]]

  def to_csv(self) -> str:
    """Returns a CSV file with all digits, whose cells are no formulas."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(self.header)
    writer.writerows(map(cell, row) for row in self.rows)
    return out.getvalue()


@dataclasses.dataclass(frozen=True)
class Picture:
  """A finished figure.

  name   of its files, without their ending
  svg    for the page
  files  {ending: content}: png, svg, pdf and csv
  """

  name: str
  title: str
  caption: str
  svg: str
  files: dict[str, bytes]


def finish(figure, name: str, title: str, caption: str, numbers: Numbers) -> Picture:
  """Renders a figure in all formats, and clears it."""
  import matplotlib

  # Measured once: "tight" would draw the figure a second time for each file.
  fit = {"bbox_inches": figure.get_tightbbox(figure.canvas.get_renderer()).padded(0.12)}
  white = {"facecolor": "white"} | fit
  # Journals take outlines of type 42, and none of type 3, which is the default.
  with matplotlib.rc_context(
    {"svg.hashsalt": name, "svg.fonttype": "path", "pdf.fonttype": 42}
  ):
    svg = _file(figure, "svg", transparent=True, metadata={"Date": None}, **fit)
    files = {
      "png": _file(figure, "png", dpi=240, **white, **FAST),
      "svg": svg,
      "pdf": _file(figure, "pdf", metadata={"CreationDate": None}, **white),
      "csv": numbers.to_csv().encode(),
    }
  figure.clear()  # its artists refer to one another: hundreds would wait for Python
  return Picture(name, title, caption, _for_page(svg.decode(), name), files)


def _file(figure, kind: str, **options: Any) -> bytes:
  file = io.BytesIO()
  figure.savefig(file, format=kind, **options)
  return file.getvalue()


def _for_page(svg: str, name: str) -> str:
  """Returns the bare <svg> with ids of its own and colours that the page sets."""
  svg = svg[svg.index("<svg") :]
  svg = svg.replace("<svg", '<svg preserveAspectRatio="xMinYMin"', 1)
  svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
  svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
  svg = re.sub(r'\bid="', f'id="{name}-', svg)
  svg = re.sub(r'href="#', f'href="#{name}-', svg).replace("url(#", f"url(#{name}-")
  names = {INK: "currentColor", FAINT: "var(--line)", PAPER: "var(--paper)"}
  names |= {color.lower(): f"var(--color{i})" for i, color in enumerate(COLORS)}
  for color, name_on_page in names.items():
    svg = svg.replace(color, name_on_page)
  return svg


def file_name(kind: str, group: str, measure: str = "") -> str:
  """Returns a name that is safe in any folder: length_curves_text, ..._exact_match."""
  words = [kind, group, measure]
  return "_".join(re.sub(r"[^A-Za-z0-9.-]+", "_", word) for word in words if word)
