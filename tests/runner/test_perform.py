"""One run's folder: finished, failed, crashed, killed, removed or damaged."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from fake_runs import FACTS, ONE, crash, perform

from experiments.runner import run_folder
from experiments.runner.locks import claim
from experiments.setup.validate import flatten
from transformer_jax.training.json_files import read_json, write_json


def test_a_finished_run_is_not_run_again(tmp_path):
  assert perform(tmp_path).state == "finished"
  again = perform(tmp_path, crash)
  assert again.state == "finished" and "before" in again.note
  folder = run_folder.folder(tmp_path, ONE)
  entry = {"id": ONE.id, "label": "rope", "group": "text", "seeds": [0]}
  assert read_json(folder / "result.json").items() >= (entry | FACTS).items()
  assert read_json(folder / "config.json")["model.position"] == "rope"
  assert read_json(folder / "made_with.json") == FACTS


def test_a_failed_run_keeps_its_traceback_and_is_tried_again(tmp_path):
  outcome = perform(tmp_path, crash)
  assert (outcome.state, outcome.note) == (
    "failed",
    "failed: RuntimeError: out of luck",
  )
  folder = run_folder.folder(tmp_path, ONE)
  assert "in crash" in (folder / "error.txt").read_text()
  assert run_folder.status(folder)["error"] == "RuntimeError: out of luck"
  assert perform(tmp_path).state == "finished"
  assert run_folder.status(folder)["attempts"] == 2
  assert not (folder / "error.txt").exists()


def die(tmp_path, step, fatal=""):
  """Leaves the folder as a process does that is killed at `step`, or crashes."""
  folder = run_folder.folder(tmp_path, ONE)
  with pytest.raises(KeyboardInterrupt):
    perform(tmp_path, lambda folder: (run_folder.recorder(folder)(step), interrupt()))
  assert run_folder.status(folder)["state"] == "interrupted"
  (folder / "error.txt").write_text(fatal)
  write_json(folder / "status.json", {**run_folder.status(folder), "state": "running"})


def interrupt():
  raise KeyboardInterrupt


def test_a_run_whose_process_keeps_crashing_is_given_up_unless_asked(tmp_path):
  for _ in range(run_folder.FAULTS):
    die(tmp_path, step=40, fatal="Fatal Python error: Segmentation fault\n\nThread\n")
  outcome = perform(tmp_path, crash)
  assert outcome.state == "failed" and "--retry" in outcome.note
  assert "crashed 3 times in a row (Fatal Python error: Segment" in outcome.note
  assert perform(tmp_path, crash).note == outcome.note
  assert perform(tmp_path, retry=True).state == "finished"


def test_a_run_that_is_killed_again_and_again_goes_on(tmp_path, capsys):
  for number in range(2 * run_folder.KILLS):
    die(tmp_path, step=40)
    said = capsys.readouterr().err
    assert ("was killed" in said) == (number >= run_folder.KILLS)
  assert perform(tmp_path).state == "finished"
  assert "killed 6 times without progress" in capsys.readouterr().err


def test_a_run_that_gets_further_is_not_given_up(tmp_path):
  for step in range(40, 40 * (run_folder.FAULTS + 2), 40):
    die(tmp_path, step, "Fatal Python error: Aborted")
  assert perform(tmp_path).state == "finished"


def test_a_crash_leaves_its_stack_and_a_kill_nothing(tmp_path):
  code = """
import os, pathlib, signal, sys
from absl import app
from transformer_jax.training.log import make_patient
from transformer_jax.training.signals import fatal_errors_in
def main(argv):
  make_patient()
  with fatal_errors_in(pathlib.Path("error.txt")):
    os.kill(os.getpid(), int(argv[1]))
app.run(main)  # which lets fatal errors write to stderr
"""
  path = {"PYTHONPATH": str(Path(run_folder.__file__).parents[2])}
  left = {}
  for number in (signal.SIGABRT, signal.SIGSEGV, signal.SIGKILL, 0):
    words = [sys.executable, "-c", code, str(int(number))]
    subprocess.run(words, cwd=tmp_path, env=os.environ | path, timeout=60)
    file = tmp_path / "error.txt"
    left[int(number)] = file.read_text().partition("\n")[0] if file.exists() else None
  aborted, segment = "Fatal Python error: Aborted", "Fatal Python error: Segmentation"
  assert left[signal.SIGABRT] == aborted and left[signal.SIGSEGV].startswith(segment)
  assert left[signal.SIGKILL] == "" and left[0] is None


def test_two_processes_do_not_run_the_same_run(tmp_path):
  with claim(run_folder.folder(tmp_path, ONE)) as mine:
    assert mine and perform(tmp_path).state == run_folder.BUSY
  assert perform(tmp_path).state == "finished"


def test_a_folder_removed_while_it_trains_is_no_finished_run(tmp_path):
  folder = run_folder.folder(tmp_path, ONE)

  def removed(path):
    run_folder.recorder(path)(40)
    shutil.rmtree(path)
    return {"seeds": [0]}

  def noticed(path):
    record_step = run_folder.recorder(path)
    removed(path)
    record_step(80)

  outcome = perform(tmp_path, removed)
  assert outcome.state == "failed" and "was removed while the run" in outcome.note
  assert not folder.exists()
  outcome = perform(tmp_path, noticed)
  assert outcome.state == "failed" and not folder.exists()

  def taken(path):
    removed(path)
    write_json(path / "status.json", {"process": {"host": "other", "pid": 1}})
    (path / "lock").touch()
    return {"seeds": [0]}

  assert "was removed" in perform(tmp_path, taken).note  # by now another process's
  assert perform(tmp_path).state == "finished"


def test_a_folder_of_another_config_is_refused(tmp_path):
  file = run_folder.folder(tmp_path, ONE) / "config.json"
  write_json(file, flatten(ONE.config) | {"model.width": 32})
  outcome = perform(tmp_path)
  assert outcome.state == "failed" and "model.width: there 32, now 64" in outcome.note
  write_json(file, flatten(ONE.config) | {"train.checkpoint_every": 40})
  assert perform(tmp_path).state == "finished"


def test_a_damaged_result_is_made_again(tmp_path, capsys):
  perform(tmp_path)
  (run_folder.folder(tmp_path, ONE) / "result.json").write_text('{"seeds": [')
  assert not perform(tmp_path).note
  assert "result.json is not what was written" in capsys.readouterr().err
