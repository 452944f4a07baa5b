"""A finished figure: its files PNG, SVG, PDF and CSV, and the SVG of the page.

PNG is for slides, SVG and PDF for papers, CSV has the numbers. The same numbers give
the same bytes: no file has a date or a random id. The page's SVG takes its colours from
the page.
"""

import contextlib
import contextvars
import csv
import dataclasses
import io
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from experiments.reporting.style import COLORS, FAINT, INK, PAPER
from transformer_jax.untrusted import cell

# Files a fifth larger, in a third of the time that zlib takes by default.
FAST = {"pil_kwargs": {"compress_level": 3}}
DPI, TALLEST = 240, 3000  # of a PNG, and its pixels: figures of hundreds of variants

# Kinds of files that are drawn at present.
KINDS: contextvars.ContextVar[tuple[str, ...]] = contextvars.ContextVar(
  "KINDS", default=("png", "svg", "pdf")
)

LONGEST = 150  # characters of a name; file systems take 255 bytes


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
  files  {ending: content}: png, svg, pdf and csv

  >>> plain = Picture("scores", "Scores", "Of RoPE.", {"svg": b"<svg/>"})
  >>> plain.svg
  '<svg preserveAspectRatio="xMinYMin"/>'
  """

  name: str
  title: str
  caption: str
  files: dict[str, bytes]

  @property
  def svg(self) -> str:
    """Returns the drawing for the page, with ids that begin with the name."""
    return _for_page(self.files["svg"].decode(), self.name)


def finish(figure, name: str, title: str, caption: str, numbers: Numbers) -> Picture:
  """Renders a figure in its formats, and clears it."""
  import matplotlib

  # Measured once: "tight" would draw the figure a second time for each file.
  fit = {"bbox_inches": figure.get_tightbbox(figure.canvas.get_renderer()).padded(0.12)}
  white = {"facecolor": "white"} | fit
  # Journals take outlines of type 42, and none of type 3, which is the default.
  with matplotlib.rc_context(
    {"svg.hashsalt": name, "svg.fonttype": "path", "pdf.fonttype": 42}
  ):
    options: dict[str, dict[str, Any]] = {
      "png": {"dpi": min(DPI, TALLEST / figure.get_figheight()), **white, **FAST},
      "svg": {"transparent": True, "metadata": {"Date": None}, **fit},
      "pdf": {"metadata": {"CreationDate": None}, **white},
    }
    files = {kind: _file(figure, kind, **options[kind]) for kind in KINDS.get()}
  files["csv"] = numbers.to_csv().encode()
  figure.clear()  # its artists refer to one another: hundreds would wait for Python
  return Picture(name, title, caption, files)


@contextlib.contextmanager
def for_page_alone() -> Iterator[None]:
  """Lets figures be drawn as SVG only, in a third of the time."""
  token = KINDS.set(("svg",))
  try:
    yield
  finally:
    KINDS.reset(token)


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
  """Returns a name that is safe in any folder: length_curves_text, ..._exact_match.

  Two groups may get the same name: see `named_apart`.
  """
  words = [kind, group, measure]
  name = "_".join(re.sub(r"[^A-Za-z0-9.-]+", "_", word) for word in words if word)
  return name[:LONGEST]


def named_apart(pictures: Iterable[Picture], taken: set[str]) -> list[Picture]:
  """Returns the pictures, with a number after each name that an earlier one has.

  taken   names of earlier ones, in small letters, as some file systems compare them;
          those of these pictures are added

  >>> drawn = [Picture(name, "", "", {}) for name in ("a_b", "A_b", "a_b")]
  >>> [picture.name for picture in named_apart(drawn, set())]
  ['a_b', 'A_b-2', 'a_b-3']
  """
  found = []
  for picture in pictures:
    names = itertools.chain(
      [picture.name], (f"{picture.name}-{n}" for n in itertools.count(2))
    )
    name = next(name for name in names if name.lower() not in taken)
    taken.add(name.lower())
    found.append(dataclasses.replace(picture, name=name))
  return found
