"""A finished run that gets seeds or scores keeps its earlier result until it has them.

Seen: a sweep until resolved, stopped while the baseline got more seeds, lost the
verdicts of all variants from its page.
"""

import pytest
from fake_sweep import QUICKSTART, edit, write_sweep

from experiments.reporting import budget, comparisons
from experiments.runner.state import checksum

BASELINE = "text-00"


@pytest.fixture
def folder(tmp_path):
  return write_sweep(tmp_path, QUICKSTART)


def add_seeds(folder, state, earlier):
  edit(folder, BASELINE, "config.json", seeds=[0, 1, 2, 3, 4])
  edit(folder, BASELINE, "status.json", state=state, step=60, extends=earlier)


@pytest.mark.parametrize("state", ["running", "interrupted", "failed"])
def test_verdicts_stand_while_seeds_are_added(folder, state):
  before = comparisons.find(folder).comparisons
  assert sum(c.verdict in ("better", "worse") for c in before) > 2
  add_seeds(folder, state, checksum(folder / "runs" / BASELINE / "result.json"))
  findings = comparisons.find(folder)
  assert findings.comparisons == before
  ((run, said, details),) = [x for x in findings.troubled if x[1] == "extended"]
  assert run.label == "none"
  assert details == (
    f"more seeds or scores, {state} at step 60; the earlier result is shown"
  )
  rows = dict(row[:2] for row in budget.budget_table(findings, "text").rows)
  assert rows["seeds"] == "3 (0, 1, 2)"


def test_the_page_says_what_was_scored_and_not_what_will_be(folder):
  coming = {"evaluate.lengths": [1, 2], "evaluate.examples": 9999}
  edit(folder, BASELINE, "config.json", **coming)
  add_seeds(folder, "running", checksum(folder / "runs" / BASELINE / "result.json"))
  (none,) = [run for run in comparisons.find(folder).sweep.of("text") if run.adding]
  assert none.config["seeds"] == [0, 1, 2]
  assert none.config["evaluate.lengths"] == [1, 2, 4, 8]


def test_another_result_than_the_earlier_one_does_not_stand(folder):
  add_seeds(folder, "interrupted", "0" * 32)
  findings = comparisons.find(folder)
  (none,) = [run for run in findings.sweep.of("text") if run.label == "none"]
  assert none.state == "interrupted" and none.result is None and not none.adding
