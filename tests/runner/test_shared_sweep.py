"""Several processes work on one sweep."""

import contextlib
import os
import signal
import socket
import subprocess
import sys

from fake_runs import BASE, SCORES, WHY, asked

from experiments import sweep
from experiments.runner import run_folder, sweep_loop, waiting
from experiments.runner.locks import claim
from experiments.setup import runs
from transformer_jax.training.json_files import read_json, write_json


def test_a_sweep_waits_for_runs_of_others_and_adopts_what_they_found(
  tmp_path, train, capsys, while_waiting
):
  none, rope = runs.expand(WHY, BASE, {})
  held = contextlib.ExitStack()
  assert held.enter_context(claim(run_folder.folder(tmp_path, none)))
  folder = run_folder.folder(tmp_path, none)
  pid = {"host": socket.gethostname(), "pid": os.getpid()}
  write_json(folder / "status.json", {"state": "running", "step": 40, "process": pid})

  @while_waiting
  def end():
    write_json(folder / "result.json", SCORES | {"seconds": {}})
    write_json(folder / "status.json", {"state": "finished", "step": 80})
    held.close()

  assert sweep.main(asked(tmp_path)) == 0
  assert train.trained == ["rope"]
  said = capsys.readouterr().out
  waits = (
    f"waiting for runs of other processes: text none (step 40, process {pid['pid']}"
  )
  assert waits in said and "[1/2] text none: finished before" in said
  assert f"report: {tmp_path}" in said


def test_a_failure_of_another_process_is_not_repeated_and_a_death_is(
  tmp_path, train, while_waiting
):
  none, rope = runs.expand(WHY, BASE, {})
  for state, trained in (("failed", ["rope"]), ("running", ["none"])):
    held = contextlib.ExitStack()
    folder = run_folder.folder(tmp_path, none)
    held.enter_context(claim(folder))
    write_json(folder / "status.json", {"state": state, "error": "no luck"})
    while_waiting(held.close)
    train.trained.clear()
    assert sweep.main(asked(tmp_path)) == (1 if state == "failed" else 0)
    assert train.trained == trained


def test_a_stopped_process_is_not_waited_for_for_ever(
  tmp_path, train, capsys, monkeypatch
):
  none, rope = runs.expand(WHY, BASE, {})
  monkeypatch.setattr(waiting, "POLL", 0.01)
  monkeypatch.setattr(waiting, "PATIENCE", 0.1)
  folder = run_folder.folder(tmp_path, none)
  child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
  try:
    with claim(folder):
      pid = {"host": socket.gethostname(), "pid": child.pid}
      write_json(folder / "status.json", {"state": "running", "process": pid})
      child.send_signal(signal.SIGSTOP)
      assert sweep.main(asked(tmp_path)) == 1
  finally:
    child.kill()
    child.wait()
  assert f"which is stopped: kill -CONT {child.pid}" in capsys.readouterr().out
  assert sweep.main(asked(tmp_path)) == 0  # its process died


def test_of_several_sweeps_one_writes_the_report(tmp_path, train, monkeypatch):
  assert sweep.main(asked(tmp_path)) == 0
  page = tmp_path / "report.html"
  page.write_text("written by the other")
  assert sweep_loop.report(tmp_path, shared=True)
  assert page.read_text() == "written by the other"
  assert sweep_loop.report(tmp_path)  # alone: templates may have changed
  assert "written by the other" not in page.read_text()
  page.write_text("of fewer runs")
  status = next(tmp_path.glob("runs/*/status.json"))
  write_json(status, {**read_json(status), "step": 3})
  assert sweep_loop.report(tmp_path, shared=True)
  assert page.read_text() != "of fewer runs"
