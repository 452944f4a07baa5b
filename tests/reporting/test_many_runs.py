"""A report of 200 runs: small, quick, and every run in it."""

import json
import time

import pytest
from fake_sweep import many_variants, read_page, write_sweep

from experiments.reporting import comparisons, figures, html_page, run_cards


@pytest.mark.slow
def test_a_report_of_200_runs(tmp_path):
  means = many_variants(100)
  content = {group: ("bits_per_byte", means) for group in ("text", "code")}
  workdir = write_sweep(tmp_path, content)
  start = time.process_time()
  findings = comparisons.find(workdir)
  found = time.process_time()
  pictures, _ = figures.draw(findings)
  drawn = time.process_time()
  text = html_page.page(findings, pictures)
  written = time.process_time()
  print(
    f"200 runs: read {found - start:.1f} s, figures {drawn - found:.1f} s, page"
    f" {written - drawn:.1f} s, {len(text.encode()) / 2**20:.2f} MiB"
  )
  assert len(text.encode()) < 3 * 2**20
  assert written - start < 60
  (workdir / "report.html").write_text(text)
  read = read_page(workdir)
  ids = [a["id"] for tag, a in read.tags if tag == "details" and "id" in a]
  assert ids == [f"run-{run.id}" for run in findings.sweep.runs] and len(ids) == 200
  assert len(read.tables["main_text"]) == 101


def test_a_run_that_two_lines_of_a_plan_name_has_one_card(tmp_path):
  few = {"none": (3.0, 3.1), "rope": (2.5, 2.8)}
  workdir = write_sweep(tmp_path, {"text": ("bits_per_byte", few)}, lengths=(64, 128))
  plan = json.loads((workdir / "sweep.json").read_text())
  plan["runs"].append(plan["runs"][0] | {"label": "without norm"})
  (workdir / "sweep.json").write_text(json.dumps(plan))
  findings = comparisons.find(workdir)
  assert [c.run.label for c in run_cards.cards(findings)] == ["none", "rope"]
  same, _, twice = findings.at("text", 64)
  assert (same.label, twice.label) == ("none", "without norm")
  assert twice.estimate.mean == same.estimate.mean
  assert twice.difference.mean == 0 and twice.verdict not in ("better", "worse")
