"""Writes what a sweep found: a page, figures, tables to copy, and a terminal summary.

  python -m experiments.report --workdir=runs/quickstart

Reads sweep.json and runs/*/ of the folder, never trains anything, and may be run while
the sweep is still going.
"""

import os
import pathlib
import re

from experiments.reporting import (
  comparisons,
  generations,
  method,
  style,
  summary,
  tables,
)
from experiments.reporting.load import ReportError
from transformer_jax import command
from transformer_jax.training.json_files import replace_file
from transformer_jax.untrusted import shown

TEMPLATES = pathlib.Path(__file__).parent / "templates"


def write_report(workdir: str | os.PathLike) -> pathlib.Path:
  """Writes report.html, results.csv, tables.md, tables.tex and PNGs into workdir."""
  found = comparisons.find(workdir)
  folder = found.sweep.workdir
  pictures = draw(found)
  for group in pictures.values():
    for picture in group:
      _write(folder / f"{picture.name}.png", picture.png)
  paper = tables.paper_tables(found)
  _write(folder / "results.csv", tables.to_csv(found))
  _write(folder / "tables.md", shown("\n".join(map(tables.to_markdown, paper))))
  _write(folder / "tables.tex", shown(_LATEX + "\n".join(map(tables.to_latex, paper))))
  return _write(folder / "report.html", shown(page(found, pictures)))


def draw(found: comparisons.Findings) -> dict[str, list]:
  """Returns {group: its figures}, the headline's length curves first."""
  from experiments.reporting import figures

  pictures = {}
  for group in found.sweep.groups:
    measures = found.measures(group)
    drawn = [figures.length_curves(found, group, measure) for measure in measures]
    if any(row.difference.count for row in found.of(group)):
      drawn.insert(1, figures.differences(found, group))
    drawn.append(figures.training_curves(found, group))
    drawn.append(generations.attention_map(found, group))
    pictures[group] = [picture for picture in drawn if picture]
  return pictures


def page(found: comparisons.Findings, pictures: dict[str, list]) -> str:
  """Returns the report as one self-contained page."""
  import jinja2

  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(TEMPLATES),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
  )
  environment.filters["breakable"] = _breakable
  groups = [
    {
      "name": group,
      "answer": text,
      "pictures": pictures[group],
      "main": tables.main_table(found, group) if found.lengths(group) else None,
      "lengths": tables.length_tables(found, group),
      "samples": tables.samples_table(found, group),
    }
    for group, text in summary.answers(found)
  ]
  return environment.get_template("report.html").render(
    sweep=found.sweep,
    groups=groups,
    cost=tables.cost_table(found),
    trouble=tables.trouble_table(found),
    method=method.method(found),
    budgets=method.budgets(found),
    origins=method.origins(found),
    colors=list(zip(style.COLORS, style.ON_DARK, strict=True)),
    finished=found.finished,
  )


def _breakable(label: str):
  """Lets the browser break a long label after brackets and commas."""
  import markupsafe

  escaped = str(markupsafe.escape(label))
  return markupsafe.Markup(re.sub(r"([,(:])", r"\1<wbr>", escaped))


def print_report(workdir: str | os.PathLike, console=None) -> None:
  """Prints the answer, the main tables and what failed."""
  import rich.box
  import rich.console
  import rich.table
  import rich.text

  found = comparisons.find(workdir)
  console = console or rich.console.Console()
  text_of = lambda text, style="": rich.text.Text(shown(text), style)
  short = []
  for group, text in summary.answers(found):
    lead = text_of(f"{group}: {text[0]} ", "bold")
    console.print(lead + text_of(text[1]), end="\n\n")
    if found.lengths(group):
      short.append(tables.short_table(found, group))
  for table in [*short, tables.trouble_table(found)]:
    if table.rows:
      title = text_of(table.title, "bold")
      grid = rich.table.Table(title=title, title_justify="left", box=rich.box.SIMPLE)
      grid.pad_edge = grid.show_edge = False
      for i, name in enumerate(table.header):
        # Headers and verdicts may take two lines, numbers not, and names some.
        longest = max(len(row[i]) for row in table.rows)
        least = 12 if i in table.folds else min(longest, 15)
        grid.add_column(text_of(name), min_width=least, overflow="fold")
      for row in table.rows:
        grid.add_row(*map(text_of, row))
      console.print(grid)
      console.print()


def _write(path: pathlib.Path, content: str | bytes) -> pathlib.Path:
  """Replaces a file as a whole, so that a full disk leaves the one before."""
  replace_file(path, content.encode() if isinstance(content, str) else content)
  return path


_LATEX = "% needs \\usepackage{booktabs,amssymb}\n"


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise ReportError(f"'{argv[1]}' is not a flag; write --workdir={argv[1]}")
  path = write_report(_WORKDIR.value)
  print_report(_WORKDIR.value)
  print(f"report: {path}")


if __name__ == "__main__":
  from absl import flags

  _WORKDIR = flags.DEFINE_string("workdir", None, "Folder that the sweep wrote.")
  flags.mark_flag_as_required("workdir")
  command.run(main, (ReportError, OSError))
