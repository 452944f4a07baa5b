"""Verdicts: the primary comparisons of a report, judged together.

Dropping a diverged seed would flatter its variant: such a run shows numbers but is not
judged by them. Where it is the one that others are compared with, no variant is judged.
A variant is judged, and its mean taken, over the seeds that both have. Where the scores
of single examples are known, a difference holds for other examples too. Comparisons
that are not primary have an estimate with an interval, and are called exploratory.
"""

from collections.abc import Mapping

from experiments.reporting import family
from experiments.reporting.family import Name, Unit
from experiments.reporting.judgements import ALPHA, Column, Judgements
from experiments.reporting.measured import MeasuredColumn
from experiments.reporting.sequential_column import SequentialColumn


def judge(
  columns: Mapping[Name, Column], baseline: str | None = None, pending: int = 0
) -> dict[Name, Judgements]:
  """Judges the primary pairs of all columns, with one 5% error for all of them.

  columns    by any name
  baseline   the second of all primary pairs; None: they are pairs of any kind
  pending    further comparisons that are planned and will be tested later
  """
  measured = {
    name: (SequentialColumn if column.looks else MeasuredColumn)(column)
    for name, column in columns.items()
  }
  tests: dict[Name | None, family.ColumnTests] = {
    name: each.tests(baseline) for name, each in measured.items()
  }
  if pending:
    tests[None] = family.ColumnTests(
      {(str(n), None): Unit(1.0) for n in range(pending)}
    )
  adjusted = family.adjust(tests, baseline, ALPHA)
  size = sum(p is not None for ps in adjusted.p.values() for p in ps.values())
  return {
    name: Judgements(
      {
        pair: each.judgement(pair, adjusted.p[name], size, adjusted.threshold)
        for pair in each.column.pairs
      },
      adjusted.leaders.get(name, ()),
    )
    for name, each in measured.items()
  }
