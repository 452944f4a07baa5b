"""A report of 200 runs: small, quick, and every run in it."""

import time

import pytest
from fake_sweep import many_variants, read_page, write_sweep

from experiments.reporting import comparisons, page


@pytest.mark.slow
def test_a_report_of_200_runs(tmp_path):
  means = many_variants(100)
  content = {group: ("bits_per_byte", means) for group in ("text", "code")}
  workdir = write_sweep(tmp_path, content)
  start = time.process_time()
  findings = comparisons.find(workdir)
  found = time.process_time()
  pictures = page.draw(findings)
  drawn = time.process_time()
  text = page.page(findings, pictures)
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
