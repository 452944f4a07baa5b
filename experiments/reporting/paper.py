"""Tables of a report in the order in which a paper has them."""

from experiments.reporting import tables
from experiments.reporting.budget import budget_table
from experiments.reporting.comparisons import Findings
from experiments.reporting.tables import Table


def paper_tables(findings: Findings) -> list[Table]:
  """Returns all tables of the report in its order."""
  found: list[Table] = []
  for group in findings.sweep.groups:
    found.append(budget_table(findings, group))
    if findings.lengths(group):
      found += [
        tables.main_table(findings, group),
        tables.pairs_table(findings, group),
        *tables.length_tables(findings, group),
      ]
      found.append(tables.samples_table(findings, group))
  found.append(tables.cost_table(findings))
  found.append(tables.trouble_table(findings))
  return [table for table in found if table.rows]
