"""Progress of a sweep, read from its folder: counts, reasons, time left."""

import dataclasses
import json
import os
import socket
import statistics
import time

import pytest

from experiments.runner import run_progress, sweep_progress
from experiments.runner.run_progress import RUNNING, STOPPED, WAITING, RunProgress, Took
from experiments.runner.time_left import time_left

HERE = {"host": socket.gethostname(), "pid": os.getpid()}
AWAY = {"host": "another-machine", "pid": 1}


def write(folder, name, content):
  folder.mkdir(parents=True, exist_ok=True)
  (folder / name).write_text(json.dumps(content))


@pytest.fixture
def folder(tmp_path):
  """A sweep of six runs, one in each state, as three machines left it."""
  names = ("done", "here", "away", "failed", "died", "never")
  entries = [{"id": x, "label": f"{x} \x1b[2J", "group": "text"} for x in names]
  write(tmp_path, "sweep.json", {"question": "why?", "runs": entries})
  at = lambda name: tmp_path / "runs" / name
  write(at("done"), "status.json", {"state": "finished", "step": 80, "attempts": 1})
  write(at("done"), "result.json", {"seconds": {"train": 40.0, "evaluate": 20.0}})
  for name, process in (("here", HERE), ("away", AWAY)):
    now = {"state": "running", "step": 20, "attempts": 2, "process": process}
    write(at(name), "status.json", now)
    write(at(name), "config.json", {"train.steps": 80})
  steps = {"block": ".", "from": 0, "to": 20, "seconds": 5.0}
  entry = {"began": time.time() - 9, "wall": 9.0, "seconds": {}, "trained": [steps]}
  write(at("away"), "attempts.json", {"attempts": [entry]})
  rows = [{"step": s, "seed": n, "loss": s + n} for s in (10, 20) for n in (0, 1)]
  text = "".join(f"{json.dumps(row)}\n" for row in rows)
  (at("away") / "metrics.jsonl").write_text(text + '{"step": 30, "se')
  failed = {"state": "failed", "error": "ValueError: out of \x1b luck", "attempts": 3}
  write(at("failed"), "status.json", failed)
  dead = {"state": "running", "step": 40, "process": HERE | {"pid": 2**22 + 1}}
  write(at("died"), "status.json", dead)
  write(at("died"), "config.json", {"train.steps": 80})
  return tmp_path


def test_every_run_counts_once_with_its_reason(folder):
  now = json.loads(json.dumps(sweep_progress.progress(folder)))
  assert (now["planned"], now["done"], now["stopped"], now["waiting"]) == (6, 1, 1, 1)
  (failed,) = now["failed"]
  assert failed["attempts"] == 3 and failed["reason"] == r"ValueError: out of \x1b luck"
  here, away = now["running"]
  assert here["label"] == r"here \x1b[2J" and here["pid"] == os.getpid()
  assert (away["step"], away["steps"], away["host"]) == (20, 80, "another-machine")
  assert away["loss"] == 20.5, "the mean of the last whole step's seeds"
  assert away["phase"] == "training" and away["late_s"] is None


def test_time_left_goes_by_steps_and_by_the_finished_of_the_group(folder):
  now = sweep_progress.progress(folder)
  here, away = now["running"]
  assert away["left_s"] == 60 * 0.25 + 20.0
  assert here["left_s"] == 60.0, "no step is timed yet: as the finished one"
  # away (35 s), then the rest of the run that died (30 s); here (60 s), then never.
  assert now["left_s"] == 120.0
  assert now["left_by"] == "by 1 finished and 2 running"


def test_other_runs_of_the_folder_do_not_count(folder):
  now = sweep_progress.progress(folder, ids={"done", "never"}, idle=1)
  assert (now["planned"], now["done"], now["waiting"]) == (2, 1, 1)
  assert now["left_s"] == 60.0
  line = sweep_progress.line(now)
  assert line == "1 of 2 runs done, 1 min 00 s left"


def test_a_folder_without_a_sweep_and_a_damaged_one_have_no_runs(tmp_path):
  assert sweep_progress.progress(tmp_path)["planned"] is None
  (tmp_path / "sweep.json").write_text('{"runs": [')
  assert sweep_progress.progress(tmp_path)["planned"] is None
  (tmp_path / "sweep.json").write_text('{"runs": {"id": 1}}')
  assert sweep_progress.progress(tmp_path)["planned"] == 0


def test_only_folders_below_runs_are_read(tmp_path):
  write(tmp_path, "sweep.json", {"runs": [{"id": "../../elsewhere"}, {"id": 7}]})
  write(tmp_path.parent / "elsewhere", "status.json", {"state": "finished"})
  assert sweep_progress.progress(tmp_path)["waiting"] == 2


def run(state, group="text", **more):
  return RunProgress("a1", "rope", group, state, **more)


@pytest.mark.parametrize(
  ("runs", "idle", "seconds"),
  [
    ([], 0, 0.0),
    ([run(WAITING)], 0, None),  # nothing will begin it
    ([run(WAITING)], 1, None),  # nothing tells how long it takes
    ([run(WAITING), run("finished", took=Took(9, 1))], 1, 9.0),
    ([run(WAITING)] * 4 + [run("finished", took=Took(9, 1))], 2, 18.0),
    # The finished of its own group, else those of all.
    ([run(WAITING, "copy"), run("finished", took=Took(9, 1))], 1, 9.0),
    (
      [
        run(WAITING, "copy"),
        run("finished", took=Took(9, 1)),
        run("finished", "copy", took=Took(5, 1)),
      ],
      1,
      5.0,
    ),
    ([run(STOPPED, step=60, steps=80), run("finished", took=Took(8, 1))], 1, 2.0),
    ([run(RUNNING, step=60, steps=80, per_step=0.5)], 0, 10.0),
    # Nothing has finished: the steps of running ones are all there is to go by.
    ([run(RUNNING, step=60, steps=80, per_step=0.5), run(WAITING)], 0, 50.0),
    ([run(RUNNING, step=0, steps=80), run(WAITING)], 0, None),
    # It evaluates already; two thirds of the time of a whole run are over.
    (
      [
        run(RUNNING, step=80, steps=80, per_step=0.5, began=time.time() - 1e4),
        run("finished", took=Took(8, 1)),
      ],
      0,
      0.0,
    ),
    ([run("failed"), run("finished", took=Took(8, 1))], 0, 0.0),
  ],
)
def test_schedules(runs, idle, seconds):
  assert time_left(runs, idle)[0] == seconds


def test_the_medians_of_a_sweep_are_taken_once_not_for_each_run(monkeypatch):
  taken = []
  median = statistics.median
  monkeypatch.setattr(statistics, "median", lambda x: taken.append(1) or median(x))
  done = [run("finished", took=Took(9, 1))] * 50
  assert time_left([*done, *[run(WAITING)] * 50], idle=1)[0] == 450.0
  assert len(taken) < 10


@pytest.mark.parametrize(
  ("quiet", "step", "phase", "late"),
  [
    (130, 40, "training", 130),
    (110, 40, "training", None),
    (130, 0, "preparing", None),  # compiling takes its time, as evaluating does
    (130, 80, "evaluating", None),
  ],
)
def test_a_run_without_a_sign(quiet, step, phase, late):
  now = run(RUNNING, step=step, steps=80, quiet_s=quiet, per_step=0.5)
  assert (now.phase, now.late_s) == (phase, late)
  assert dataclasses.replace(now, dispatch=60).late_s is None, "dispatches are long"


def test_a_page_that_asks_again_reads_finished_runs_once(folder, monkeypatch):
  sweep_progress.progress(folder)
  reads = []
  monkeypatch.setattr(
    run_progress.goodput, "recorded", lambda path: reads.append(path.name) or []
  )
  sweep_progress.progress(folder)
  assert "done" not in reads and "away" in reads
