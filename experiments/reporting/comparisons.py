"""Comparisons of a sweep's folder: its columns are read, and judged together."""

import os
from collections.abc import Iterator

from experiments.reporting import cells, limits, load, verdicts
from experiments.reporting.cells import Cell
from experiments.reporting.columns import column as column_of
from experiments.reporting.columns import targets_of
from experiments.reporting.findings import Comparison, Findings
from experiments.reporting.judgements import Column, Judgements
from experiments.setup import looks as looks_of
from experiments.setup import primary
from experiments.setup.looks import Looks
from experiments.setup.validate import ConfigError


def find(workdir: str | os.PathLike[str]) -> Findings:
  """Returns the comparisons of a sweep's folder; raises ReportError."""
  sweep = load.read(workdir)
  cells.check(sweep)
  looks = _looks(sweep)
  better: dict[Cell, str] = {}
  judged: set[Cell] = set()
  for group in sweep.groups:
    better |= cells.cells(sweep, group)
    judged |= {*cells.primary_cells(sweep, group)}
  columns = {
    cell: column_of(sweep, cell, side, cell in judged, looks)
    for cell, side in better.items()
  }
  against_one = sweep.comparisons.contrasts == primary.BASELINE
  found = verdicts.judge(
    columns,
    sweep.baseline if against_one else None,
    pending=cells.pending(sweep) if looks else 0,
  )
  compared = [
    comparison
    for cell, column in columns.items()
    for comparison in _compared(sweep, cell, column, found[cell])
  ]
  return Findings(
    sweep,
    comparisons=tuple(c for c in compared if c.against == sweep.baseline),
    pairs=tuple(c for c in compared if c.against != sweep.baseline),
    leaders={cell: x.leaders for cell, x in found.items() if x.leaders},
    looks=looks,
  )


def _looks(sweep: load.Sweep) -> Looks | None:
  """Returns the looks that a sweep's folder declares."""
  try:
    return looks_of.recorded(sweep.workdir)
  except ConfigError as error:
    raise load.ReportError(f"{sweep.workdir / 'sweep.json'}: {error}") from error


def _compared(
  sweep: load.Sweep,
  cell: Cell,
  column: Column,
  judgements: Judgements,
) -> Iterator[Comparison]:
  """Yields the comparisons of a cell."""
  runs = {run.label: run for run in sweep.of(cell.group)}
  scored = [run for run in runs.values() if column.scores[run.label]]
  targets = targets_of(scored, cell)
  train = cells.train_length(sweep, cell.group) or 1
  for (label, against), judgement in judgements.of.items():
    run = runs[label]
    yield Comparison(
      **cell._asdict(),
      label=label,
      times=run.times.get(cell.length, cell.length / train),
      better=column.better,
      planned=len(run.fact("seeds") or ()),
      against=against,
      target=targets.get(label),
      resolution=column.resolution,
      bounds=column.bounds,
      chance=limits.chance(run, cell.length, cell.measure),
      **vars(judgement),
    )
