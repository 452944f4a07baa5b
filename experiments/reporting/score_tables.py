"""Tables of a group's scores: its verdicts, and its means at all lengths."""

import dataclasses

from experiments.reporting import comparable, generations, levels, sampling
from experiments.reporting.cells import Cell
from experiments.reporting.findings import Comparison, Findings, column
from experiments.reporting.judgements import ALPHA
from experiments.reporting.report_table import Table
from experiments.reporting.text import listed, measure_name, multiple, plus_minus

SIGNS = {
  "better": "▲ better",
  "worse": "▼ worse",
  "equivalent": "≈ equivalent",
  "did not resolve": "○ did not resolve",
}


def verdict(comparison: Comparison) -> str:
  """Returns the verdict with its sign."""
  return SIGNS.get(comparison.verdict, comparison.verdict)


def mean(comparison: Comparison) -> str:
  """Returns the mean, with the number of seeds where some are missing."""
  estimate, planned = comparison.estimate, comparison.planned
  if estimate.mean is None:
    return comparison.verdict
  text = plus_minus(estimate)
  lost = 0 < estimate.count < planned
  return f"{text} ({estimate.count} of {planned} seeds)" if lost else text


def main_table(findings: Findings, group: str) -> Table:
  """Returns mean, difference and verdict at the lengths with verdicts.

  Without any, at the trained and the longest length. A group without the baseline has
  means alone.
  """
  shown = findings.main(group)
  columns = [findings.cell(cell) for cell in shown]
  better = columns[0][0].better
  header, baseline = ["variant"], findings.sweep.baseline
  many = _cells(findings, group)
  for times in map(column, columns):
    header += [f"{times} mean", f"{times} minus {baseline}", f"{times} verdict"][:many]
  rows = [
    (
      cells[0].label,
      *(
        text
        for c in cells
        for text in (mean(c), plus_minus(c.difference, True), verdict(c))[:many]
      ),
    )
    for cells in zip(*columns, strict=True)
  ]
  title = f"{group}: {_score(shown[0])} ({better} is better), ± 95% interval"
  every = [comparison for cells in columns for comparison in cells]
  notes = _notes(every) + _sampled(findings)
  notes += tuple(filter(None, [levels.sentence(every)]))
  notes += comparable.notes([r for r in findings.sweep.of(group) if r.result])
  notes += generations.floor_notes(findings, group)
  bold = frozenset(
    (line, 1 + many * n)
    for n, cells in enumerate(columns)
    for line, c in enumerate(cells)
    if c.verdict == "better"
  )
  return Table(f"main_{group}", title, tuple(header), tuple(rows), notes, bold=bold)


def pairs_table(findings: Findings, group: str) -> Table:
  """Returns the primary comparisons of a group that its main table lacks.

  Those with another run than the baseline, and those by other measures.
  """
  shown = findings.main(group) if findings.lengths(group) else []
  compared = [
    c
    for cell in findings.primary(group)
    for c in (*findings.cell(cell), *findings.pairs)
    if c.cell == cell and c.verdict != "baseline"
    if c in findings.pairs or (cell not in shown and c.verdict != "exploratory")
  ]
  rows = [
    (
      f"{c.label} minus {c.against}",
      f"{_score(c.cell)} at {multiple(c.times)}",
      plus_minus(c.difference, True),
      verdict(c),
    )
    for c in compared
  ]
  header = ("comparison", "score", "difference", "verdict")
  title = f"{group}: further comparisons, ± 95% interval"
  notes = _notes(compared) + _sampled(findings)
  return Table(f"pairs_{group}", title, header, tuple(rows), notes)


def _sampled(findings: Findings) -> tuple[str, ...]:
  """Returns a note on intervals where seeds were added until resolved."""
  return (sampling.NOTE,) if findings.looks else ()


def _score(cell: Cell) -> str:
  """Returns "accuracy", or "accuracy, last quarter of the targets"."""
  name = measure_name(cell.measure)
  part = cell.part.replace("_", " ")
  return name if cell.part == "mean" else f"{name}, {part} of the targets"


def _cells(findings: Findings, group: str) -> int:
  """Returns the number of cells of a length: without a baseline, the mean alone."""
  labels = [run.label for run in findings.sweep.of(group)]
  return 3 if findings.sweep.baseline in labels else 1


def _notes(compared: list[Comparison]) -> tuple[str, ...]:
  """Returns notes on missing verdicts: p values in one, other reasons one by one."""
  unresolved: list[str] = []
  others: dict[str, list[str]] = {}
  for c in compared:
    where = f"{c.label} at {multiple(c.times)}"
    if c.verdict == "exploratory":
      continue
    if c.p is not None and c.p_holm is not None and c.difference.interval:
      if c.verdict == "did not resolve":
        alone = f" ({c.p:.3g} alone)" if c.p < ALPHA else ""
        more = f", {c.more}" if c.more else ""
        unresolved.append(f"{where}: {c.p_holm:.3g}{alone}{more}")
    elif c.reason and c.verdict not in ("failed", "unfinished"):
      reason = c.reason.removeprefix(f"{c.label}: ")
      others.setdefault(f"{c.verdict}: {reason}", []).append(where)
  notes = [f"{listed(cells)} {reason}" for reason, cells in others.items()]
  if unresolved:
    notes.append(f"p after correction where none resolved: {'; '.join(unresolved)}")
  return tuple(f"{note}." for note in notes)


def short_table(findings: Findings, group: str) -> Table:
  """Returns the main table in short, for a terminal of 80 columns."""
  table = main_table(findings, group)
  many = _cells(findings, group)
  last = len(table.header) - many
  chosen = [0, 1, *range(last, last + many)] if last > 1 else [*range(1 + many)]

  def pick(cells: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(cells[n] for n in chosen)

  rows = tuple(map(pick, table.rows))
  return dataclasses.replace(table, header=pick(table.header), rows=rows)


def length_tables(findings: Findings, group: str) -> list[Table]:
  """Returns one table of all lengths for each measure and part, the headline first."""
  tables: list[Table] = []
  for measure, better in findings.measures(group).items():
    for part in findings.parts(group, measure):
      lengths = findings.lengths(group)
      columns = [findings.at(group, length, measure, part) for length in lengths]
      header = [_length(cells) for cells in columns]
      rows = [
        (cells[0].label, *map(mean, cells)) for cells in zip(*columns, strict=True)
      ]
      where = "" if part == "mean" else f", {part.replace('_', ' ')} of the targets"
      title = f"{group}: {measure_name(measure)}{where} ({better} is better)"
      name = f"lengths_{group}_{measure}_{part}"
      tables.append(Table(name, title, ("variant", *header), tuple(rows)))
  return tables


def _length(compared: list[Comparison]) -> str:
  """Returns "4x (256)", or "length 256" where training lengths differ."""
  name = column(compared)
  return f"{name} ({compared[0].length})" if name.endswith("x") else name
