"""A thousand runs by a hundred workers: each once, and a report of all."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
REPORT = """
import resource, sys, time
def peak():
  return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
from experiments.setup.registries import registries
registries()
before, begun = peak(), time.process_time()
from experiments.reporting import comparisons, page
findings = comparisons.find(sys.argv[1])
page.write_findings(findings)
took = time.process_time() - begun
print(f"report: {took:.1f} s of CPU, {peak()} MiB, of which {before} before it began")
"""


@pytest.mark.slow  # 5 min on two busy cores, most of it waiting for the disk
@pytest.mark.timeout(900)
def test_a_thousand_runs_by_a_hundred_workers(tmp_path):
  run = {"capture_output": True, "text": True, "timeout": 800, "check": False}
  environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
  words = [sys.executable, str(HERE / "thousand_runs.py"), "1000", "100"]
  done = subprocess.run([*words, str(tmp_path / "out")], env=environment, **run)
  assert done.returncode == 0, done.stderr
  found = json.loads(done.stdout.splitlines()[-1])
  print(found)
  assert found["runs"] == found["finished"] == found["trained"] == 1000
  assert found["exit_codes"] == [0]
  each = found["bytes"] / 1000
  print(f"{each / 1024:.1f} KiB and {found['files'] / 1000:.1f} files each run")
  assert each < 64 * 1024
  report = [sys.executable, "-c", REPORT, str(tmp_path / "out")]
  done = subprocess.run(report, env=environment, **run)
  assert done.returncode == 0, done.stderr
  print(done.stdout)
  page = (tmp_path / "out" / "report.html").read_text()
  assert page.count('<details id="run-') == 1000
