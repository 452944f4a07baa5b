"""Goodput of runs in a report: on cards and in the method, absent in old records."""

import html

import fake_sweep
import pytest

from experiments.reporting import time_spent
from experiments.reporting.loaded_run import LoadedRun
from experiments.reporting.page import write_report
from experiments.runner import goodput

SECONDS = {"steps": 60.0, "lost": 15.0, "restart": 12.0, "compile": 9.0, "data": 0.3}
RECORD = {"share": 0.6, "wall_s": 100.0, "attempts": 3, "seconds": SECONDS}
FEW = {"text": ("bits_per_byte", {"none": (3.0, 3.1), "rope": (2.5, 2.8)})}


def run(record):
  result = {"goodput": record} if record else {}
  return LoadedRun("a1", "rope", "text", "finished", result=result)


def test_a_sentence_names_what_took_a_hundredth_of_the_time_largest_first():
  assert time_spent.time_spent(run(RECORD)) == (
    "Goodput 60% of 1 min 40 s in 3 attempts; steps that were trained again 15%,"
    " restarts 12% and compiling 9%."
  )


@pytest.mark.parametrize(
  "record",
  [
    None,
    7,
    {},
    RECORD | {"wall_s": 0},
    RECORD | {"share": "0.5"},
    RECORD | {"seconds": {"lost": "all"}},
    RECORD | {"seconds": None},
  ],
)
def test_old_and_damaged_records_say_nothing(record):
  assert time_spent.time_spent(run(record)) == ""
  assert time_spent.goodput_of_all([run(record)]) == ""


def test_every_part_of_the_record_has_a_name():
  attempt = {"wall": 1.0, "seconds": {"restore": 0.1}, "trained": []}
  parts = goodput.summary([attempt, attempt])["seconds"]
  assert {*parts} - {"steps"} == {*time_spent.PARTS}


def test_the_page_has_it_where_it_was_recorded(tmp_path, undrawn):
  fake_sweep.write_sweep(tmp_path, FEW, lengths=(64, 128))
  write_report(tmp_path)
  before = (tmp_path / "report.html").read_text()
  assert "oodput" not in before
  fake_sweep.edit(tmp_path, "text-01", goodput=RECORD)
  write_report(tmp_path)
  page = html.unescape((tmp_path / "report.html").read_text())
  assert page.count("Goodput 60% of 1 min 40 s in 3 attempts; steps that were") == 1
  method = page[page.index('id="method"') :]
  assert "60% of 1 min 40 s, over 1 run and 3 attempts, of which" in method
  assert "15.0% went into steps that were trained again" in method
