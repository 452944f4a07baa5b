"""Tables of a report in the order in which a paper has them."""

from collections.abc import Sequence

from experiments.reporting import run_tables, score_tables
from experiments.reporting.budget import budget_table
from experiments.reporting.findings import Findings
from experiments.reporting.ladder_curves import Fits
from experiments.reporting.ladder_tables import ladder_table
from experiments.reporting.report_table import Table
from experiments.reporting.tuning_report import tuning_table


def paper_tables(findings: Findings, ladders: Sequence[Fits] = ()) -> list[Table]:
  """Returns all tables of the report in its order.

  ladders   the sweep's ladders of sizes
  """
  found: list[Table] = []
  for group in findings.sweep.groups:
    found += [budget_table(findings, group), tuning_table(findings, group)]
    if findings.lengths(group):
      found += [
        score_tables.main_table(findings, group),
        score_tables.pairs_table(findings, group),
        *score_tables.length_tables(findings, group),
      ]
      found.append(run_tables.samples_table(findings, group))
  found += map(ladder_table, ladders)
  found.append(run_tables.cost_table(findings))
  found.append(run_tables.trouble_table(findings))
  return [table for table in found if table.rows]
