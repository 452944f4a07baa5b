"""The report as one HTML page, alone or with the progress of a running sweep."""

import base64
import hashlib
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import markupsafe

from experiments.reporting import (
  budget,
  hints,
  ladder_curves,
  ladder_tables,
  method,
  overview,
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
from experiments.reporting.report_table import Table

TEMPLATES = pathlib.Path(__file__).parents[1] / "templates"


def page(
  findings: Findings,
  pictures: dict[str, list[Picture]],
  rising: Sequence[Mapping[str, Any]] = (),
  live: int | None = None,
) -> str:
  """Returns the report as one self-contained HTML page.

  pictures   {group: its figures}
  rising     parts of the ladders of sizes
  live       number of this report among those of a server that shows progress above it;
             None: a page that loads nothing
  """
  groups = [
    _group(findings, group, answer, pictures[group])
    for group, answer in summary.answers(findings)
  ]
  return (
    environment()
    .get_template("report.html")
    .render(
      **_scripts(live),
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
      cost=run_tables.cost_table(findings),
      trouble=run_tables.trouble_table(findings),
      method=method.method(findings),
      budgets=method.budgets(findings),
      origins=method.origins(findings),
      colors=list(zip(style.COLORS, style.ON_DARK, strict=True)),
      finished=findings.finished,
    )
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


def ladder_part(fits: Fits, pictures: Sequence[Picture]) -> dict[str, Any]:
  """Returns a ladder's part of the page: name, answer, table, figures."""
  return {
    "name": fits.name,
    "answer": ladder_curves.answer(fits),
    "table": ladder_tables.ladder_table(fits),
    "pictures": pictures,
  }


def page_alone(note: str, live: int, question: str = "") -> str:
  """Returns the page of a sweep without a report: its progress and a note."""
  template = environment().get_template("live_alone.html")
  return template.render(**_scripts(live), note=note, question=question)


def environment() -> jinja2.Environment:
  """Returns the environment of all pages: escaped, and strict about names."""
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(TEMPLATES),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
  )
  environment.filters["breakable"] = _breakable
  return environment


def _scripts(live: int | None) -> dict[str, Any]:
  """Returns the scripts of a page, and the policy that lets them run and no other."""
  names = {"script": "report.js"} | ({} if live is None else {"live_script": "live.js"})
  texts = {name: (TEMPLATES / file).read_text("utf-8") for name, file in names.items()}
  policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src"
  policy += "".join(f" {_hash(text)}" for text in texts.values())
  policy += "" if live is None else "; connect-src 'self'"
  return texts | {"live": live, "policy": markupsafe.Markup(policy)}


def _hash(script: str) -> str:
  digest = hashlib.sha256(script.encode()).digest()
  return f"'sha256-{base64.b64encode(digest).decode()}'"


def _breakable(label: str) -> markupsafe.Markup:
  """Lets the browser break a long label after brackets and commas."""
  escaped = str(markupsafe.escape(label))
  return markupsafe.Markup(re.sub(r"([,(:])", r"\1<wbr>", escaped))
