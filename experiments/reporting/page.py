"""The report of a sweep: page, figures, tables to copy, and a terminal summary."""

import os
import pathlib
from collections.abc import Sequence

import rich.box
import rich.console
import rich.table
import rich.text

from experiments.reporting import (
  by_seed,
  comparisons,
  figures,
  html_page,
  ladder_curves,
  ladder_tables,
  latex,
  paper,
  references,
  results_csv,
  run_tables,
  score_tables,
  summary,
  tuning_report,
)
from experiments.reporting.findings import Findings
from experiments.reporting.ladder_curves import Fits
from experiments.reporting.report_table import Table, to_markdown
from transformer_jax.training.json_files import replace_file
from transformer_jax.untrusted import shown


def write_report(workdir: str | os.PathLike[str]) -> pathlib.Path:
  """Writes the page, CSV files, tables to copy and PNGs; returns the page's path.

  workdir   folder of the sweep, with sweep.json; the files go there too

  Raises ReportError where the folder has no readable sweep.json.
  """
  return write_findings(comparisons.find(workdir))


def write_findings(findings: Findings) -> pathlib.Path:
  """Writes the report of what was found in a folder; returns the page's path."""
  folder = findings.sweep.workdir
  ladders = ladder_curves.ladders(findings)
  pictures, risen = figures.draw(findings, ladders)
  for drawn in (*pictures.values(), *risen.values()):
    for figure in drawn:
      for ending, content in figure.files.items():
        _write(folder / f"{figure.name}.{ending}", content)
  for name, text in _texts(findings, ladders).items():
    if text:
      _write(folder / name, text)
  rising = [html_page.ladder_part(fits, risen[fits.name]) for fits in ladders]
  text = shown(html_page.page(findings, pictures, rising))
  return _write(folder / "report.html", text)


def _texts(findings: Findings, ladders: Sequence[Fits]) -> dict[str, str]:
  """Returns {name of a file: its text} beside the page; "" where there is nothing."""
  every_table = paper.paper_tables(findings, ladders)
  return {
    "results.csv": results_csv.to_csv(findings),
    "results_by_seed.csv": by_seed.to_csv(findings.sweep),
    "tuning.csv": tuning_report.to_csv(findings),
    "ladders.csv": ladder_tables.to_csv(ladders),
    "tables.md": shown("\n".join(map(to_markdown, every_table))),
    "tables.tex": shown(latex.document(findings, every_table)),
    "references.bib": shown(references.to_bibtex(findings.sweep.runs)),
  }


def print_report(
  workdir: str | os.PathLike[str], console: rich.console.Console | None = None
) -> None:
  """Prints the answer, the main tables and all failures.

  workdir   folder of the sweep
  console   where to; None: the terminal
  """
  print_findings(comparisons.find(workdir), console)


def print_findings(
  findings: Findings, console: rich.console.Console | None = None
) -> None:
  """Prints what was found, as `print_report`."""
  console = console or rich.console.Console()
  for fits in ladder_curves.ladders(findings):
    answer = f"{fits.name}: {ladder_curves.answer(fits)}"
    console.print(_text(answer, "bold"), end="\n\n")
  for group, (lead, rest) in summary.answers(findings):
    console.print(_text(f"{group}: {lead} ", "bold") + _text(rest), end="\n\n")
  short = [
    table
    for group in findings.sweep.groups
    if findings.lengths(group)
    for table in (
      score_tables.short_table(findings, group),
      score_tables.pairs_table(findings, group),
    )
  ]
  for table in [*short, run_tables.trouble_table(findings)]:
    if table.rows:
      console.print(grid(table))
      console.print()


def grid(table: Table) -> rich.table.Table:
  """Returns a table for the terminal."""
  title = _text(table.title, "bold")
  drawn = rich.table.Table(title=title, title_justify="left", box=rich.box.SIMPLE)
  drawn.pad_edge = drawn.show_edge = False
  for column, name in enumerate(table.header):
    # Headers and verdicts may take two lines, numbers not, and names some.
    longest = max(len(cells[column]) for cells in table.rows)
    least = 12 if column in table.folds else min(longest, 15)
    drawn.add_column(_text(name), min_width=least, overflow="fold")
  for cells in table.rows:
    drawn.add_row(*map(_text, cells))
  return drawn


def _text(text: str, style: str = "") -> rich.text.Text:
  return rich.text.Text(shown(text), style)


def _write(path: pathlib.Path, content: str | bytes) -> pathlib.Path:
  """Replaces a file as a whole, so that a full disk leaves the one before."""
  replace_file(path, content.encode() if isinstance(content, str) else content)
  return path
