"""Shared parts of the catalogue's pages: tables, galleries and cells."""

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from experiments.catalogue import pictures
from transformer_jax.attention.cores import cores
from transformer_jax.axes import Dims
from transformer_jax.models.compatibility import MODES
from transformer_jax.positions import PositionalEncoding

TEMPLATES = Path(__file__).parents[1] / "templates"
SIZES = {  # of models whose encodings are counted
  "small": Dims(V=256, D=64, H=4, F=256, L=64),
  "base": Dims(V=32_000, D=512, H=8, F=2048, L=512),
  "large": Dims(V=32_000, D=1024, H=16, F=4096, L=2048),
}
LAYERS = {"small": 2, "base": 6, "large": 24}


def render(name: str, **parts: Any) -> str:
  """Fills a template with tables."""
  text = (TEMPLATES / name).read_text("utf-8")
  template = jinja2.Template(text, keep_trailing_newline=True, trim_blocks=True)
  return template.render(**parts)


def purpose(thing: Any) -> str:
  """Returns the first sentence of an object's docstring."""
  text = inspect.getdoc(type(thing)) or ""
  start = " ".join(text.split("\n\n")[0].split())
  return re.split(r"(?<!et al\.)(?<=[.;])\s(?![^\[]*\])", start)[0].rstrip(";.")


def formula(thing: Any) -> str:
  """Returns the formula of an object's docstring, or an empty string."""
  blocks = (inspect.getdoc(type(thing)) or "").split("\n\n")[1:2]
  lines = [line for block in blocks for line in block.splitlines()]
  indented = lines and all(line.startswith("    ") for line in lines)
  return "\n".join(line[4:] for line in lines) if indented else ""


def entries(things: Mapping[str, Any], facts: Callable[[Any], str]) -> str:
  """Returns the gallery: picture, formula, source and properties of each object."""
  parts = []
  for name, thing in things.items():
    lines = [f"### `{name}`", f"![{name}]({picture(thing)})"]
    lines.append(f"{purpose(thing)}. {paper(thing)}.")
    if formula(thing):
      lines.append(f"```text\n{formula(thing)}\n```")
    parts.append("\n\n".join([*lines, facts(thing)]))
  return "\n\n".join(parts)


def thumbnails(things: Mapping[str, Any], columns: int = 4) -> str:
  """Returns a table of all pictures, each under a link to its entry."""
  cells = [
    f"[`{name}`](#{name})<br>![{name}]({picture(thing)})"
    for name, thing in things.items()
  ]
  cells += [""] * (-len(cells) % columns)
  rows = [cells[n : n + columns] for n in range(0, len(cells), columns)]
  return table(rows[0], rows[1:])


def picture(thing: Any) -> str:
  """Returns the path of an object's picture, relative to a page."""
  return str(pictures.path(thing).relative_to(pictures.FOLDER.parent))


def paper(thing: Any) -> str:
  """Returns authors and year of an object's paper, with a link."""
  module = sys.modules[type(thing).__module__].__doc__ or ""
  text = " ".join((module if "http" in module else thing.__doc__ or "").split())
  who = re.search(
    r"([\w'-]+(?: \d+| (?:and|&) [\w'-]+)?(?: et al\.)?), ((?:19|20)\d\d)", text
  )
  link = re.search(r"https?://\S+?(?=[\s.]*(?:\s|$))", text)
  if not (who and link):
    raise ValueError(
      f"{type(thing).__module__}: start the file with 'Title. Author et al., year."
      " https://arxiv.org/abs/ID'"
    )
  return f"[{who[1].strip()}, {who[2]}]({link[0].rstrip(',;')})"


def cell(ask: Callable, use: str, reasons: list[str]) -> str:
  """Returns the cores that never refuse, or the number of the reason."""
  modes = [mode for mode in MODES if (use, mode) != ("encoder", "decode")]
  refused = {
    name: next(filter(None, (ask(cores.build(name), mode) for mode in modes)), None)
    for name in cores
    if name != "auto"  # it serves whatever any core serves
  }
  serving = [name for name, reason in refused.items() if not reason]
  if serving:
    return short(serving)
  reason = re.sub(r"^\S+ in \w+ attention: ", "", refused["dense"] or "")
  if reason not in reasons:
    reasons.append(reason)
  return f"no ({reasons.index(reason) + 1})"


def short(serving: list[str]) -> str:
  """Returns names of cores; `all` are those that serve plain attention."""
  none = PositionalEncoding()
  common = [n for n in cores if n != "auto" and not cores.build(n).refusal(none)]
  missing = [name for name in common if name not in serving]
  if not missing and len(serving) == len(common):
    return "all"
  if serving == [n for n in common if n not in missing] and len(missing) < 3:
    return f"all but {', '.join(missing)}"
  return ", ".join(serving)


def table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
  """Returns a table in Markdown."""
  rows = [header, ["---"] * len(header), *lines]
  escaped = ([word.replace("|", "\\|") for word in row] for row in rows)
  return "\n".join(f"| {' | '.join(row)} |" for row in escaped)
