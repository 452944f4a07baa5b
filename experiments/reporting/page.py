"""The report of a sweep: page, figures, tables to copy, and a terminal summary."""

import base64
import hashlib
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import markupsafe
import rich.box
import rich.console
import rich.table
import rich.text

from experiments.reporting import (
  budget,
  by_seed,
  comparisons,
  figures,
  hints,
  ladder_curves,
  ladder_tables,
  latex,
  method,
  overview,
  paper,
  references,
  results_csv,
  run_cards,
  run_tables,
  score_tables,
  scored_examples,
  style,
  summary,
  tuning_report,
)
from experiments.reporting.findings import Findings
from experiments.reporting.ladder_curves import Fits
from experiments.reporting.picture import Picture
from experiments.reporting.report_table import Table, to_markdown
from transformer_jax.training.json_files import replace_file
from transformer_jax.untrusted import shown

TEMPLATES = pathlib.Path(__file__).parents[1] / "templates"


def write_report(workdir: str | os.PathLike[str]) -> pathlib.Path:
  """Writes the page, CSV files, tables to copy and PNGs; returns the page's path.

  workdir   folder of the sweep, with sweep.json; the files go there too

  Raises ReportError where the folder has no readable sweep.json.
  """
  findings = comparisons.find(workdir)
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
  rising = [_ladder(fits, risen[fits.name]) for fits in ladders]
  return _write(folder / "report.html", shown(page(findings, pictures, rising)))


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


def _ladder(fits: Fits, pictures: list[Picture]) -> dict[str, Any]:
  """Returns a ladder's part of the page: name, answer, table, figures."""
  return {
    "name": fits.name,
    "answer": ladder_curves.answer(fits),
    "table": ladder_tables.ladder_table(fits),
    "pictures": pictures,
  }


def page(
  findings: Findings,
  pictures: dict[str, list[Picture]],
  rising: Sequence[Mapping[str, Any]] = (),
) -> str:
  """Returns the report as one self-contained HTML page.

  pictures   {group: its figures}
  rising     parts of the ladders of sizes
  """
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(TEMPLATES),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
  )
  environment.filters["breakable"] = _breakable
  script = (TEMPLATES / "report.js").read_text("utf-8")
  groups = [
    _group(findings, group, answer, pictures[group])
    for group, answer in summary.answers(findings)
  ]
  return environment.get_template("report.html").render(
    sweep=findings.sweep,
    groups=groups,
    ladders=rising,
    spent=[
      table(findings, group)
      for group in findings.sweep.groups
      for table in (budget.budget_table, tuning_report.tuning_table)
    ],
    overview=overview.overview(findings),
    cards=run_cards.cards(findings),
    script=script,
    script_hash=policy_hash(script),
    cost=run_tables.cost_table(findings),
    trouble=run_tables.trouble_table(findings),
    method=method.method(findings),
    budgets=method.budgets(findings),
    origins=method.origins(findings),
    colors=list(zip(style.COLORS, style.ON_DARK, strict=True)),
    finished=findings.finished,
  )


def _group(
  findings: Findings, group: str, answer: tuple[str, str], pictures: list[Picture]
) -> dict[str, Any]:
  """Returns a group's part of the page: its answer, figures and tables.

  answer   and further findings, as `summary.answers` has them
  """
  return {
    "name": group,
    "answer": answer,
    "pictures": pictures,
    "main": main_table(findings, group) if findings.lengths(group) else None,
    "further": score_tables.pairs_table(findings, group),
    "lengths": length_tables(findings, group),
    "samples": run_tables.samples_table(findings, group),
    "scored": scored_examples.scored_table(findings, group),
  }


def main_table(findings: Findings, group: str) -> tuple[Table, hints.Hints]:
  """Returns a group's main table, with the seeds' values of each cell."""
  table = score_tables.main_table(findings, group)
  columns = overview.main(findings, group)
  cells = (len(table.header) - 1) // len(columns)
  return table, hints.hints(findings, columns, cells)


def length_tables(findings: Findings, group: str) -> list[tuple[Table, hints.Hints]]:
  """Returns the tables of all lengths, with the seeds' values of each cell."""
  columns = [
    [findings.at(group, length, measure, part) for length in findings.lengths(group)]
    for measure in findings.measures(group)
    for part in findings.parts(group, measure)
  ]
  shown = score_tables.length_tables(findings, group)
  return [
    (table, hints.hints(findings, column))
    for table, column in zip(shown, columns, strict=True)
  ]


def policy_hash(script: str) -> str:
  """Returns the source of a policy that lets this script run, and no other."""
  digest = hashlib.sha256(script.encode()).digest()
  return f"sha256-{base64.b64encode(digest).decode()}"


def _breakable(label: str) -> markupsafe.Markup:
  """Lets the browser break a long label after brackets and commas."""
  escaped = str(markupsafe.escape(label))
  return markupsafe.Markup(re.sub(r"([,(:])", r"\1<wbr>", escaped))


def print_report(
  workdir: str | os.PathLike[str], console: rich.console.Console | None = None
) -> None:
  """Prints the answer, the main tables and all failures.

  workdir   folder of the sweep
  console   where to; None: the terminal
  """
  findings = comparisons.find(workdir)
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
      console.print(_grid(table))
      console.print()


def _grid(table: Table) -> rich.table.Table:
  title = _text(table.title, "bold")
  grid = rich.table.Table(title=title, title_justify="left", box=rich.box.SIMPLE)
  grid.pad_edge = grid.show_edge = False
  for column, name in enumerate(table.header):
    # Headers and verdicts may take two lines, numbers not, and names some.
    longest = max(len(cells[column]) for cells in table.rows)
    least = 12 if column in table.folds else min(longest, 15)
    grid.add_column(_text(name), min_width=least, overflow="fold")
  for cells in table.rows:
    grid.add_row(*map(_text, cells))
  return grid


def _text(text: str, style: str = "") -> rich.text.Text:
  return rich.text.Text(shown(text), style)


def _write(path: pathlib.Path, content: str | bytes) -> pathlib.Path:
  """Replaces a file as a whole, so that a full disk leaves the one before."""
  replace_file(path, content.encode() if isinstance(content, str) else content)
  return path
