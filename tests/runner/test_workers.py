"""Processes of one command that share its runs."""

import dataclasses
import io
import json
import os
import queue
import signal
from pathlib import Path

import jax
import pytest
from fake_runs import asked

from experiments import sweep
from experiments.runner import (
  process,
  waiting,
  worker_connection,
  worker_process,
  workers,
)
from experiments.runner.run_folder import FAULTS
from transformer_jax.training.signals import Stop


@pytest.fixture
def shared(tmp_path, monkeypatch):
  """Runs a sweep of two runs in two fake processes; returns (exit code, their log)."""
  told = tmp_path / "told"
  monkeypatch.setattr(
    worker_connection, "COMMAND", (str(Path(__file__).parent / "fake_worker.py"),)
  )
  monkeypatch.setattr(workers, "POLL", 0.01)
  monkeypatch.setattr(waiting, "POLL", 0.01)
  monkeypatch.setenv("TOLD", str(told))

  def run(does):
    monkeypatch.setenv("DOES", json.dumps(does))
    code = sweep.main(dataclasses.replace(asked(tmp_path / "out"), workers=2))
    return code, told.read_text().splitlines()

  return run


def test_two_processes_share_the_runs_and_print_as_one(shared, capfd):
  code, told = shared({})
  said, noise = capfd.readouterr()
  assert code == 0 and noise == ""
  assert sorted(told)[2:] == ["run [1/2] text none", "run [2/2] text rope"]
  # Ctrl-C reaches the parent alone, which lets them save.
  assert told[0].startswith("blocked [2, 15")
  assert "2 runs in " in said and "2 runs at a time, 16 cores each\n" in said
  for name in ("[1/2] text none", "[2/2] text rope"):
    assert f"{name}  8/8  loss 1.250  in " in said
  assert said.count("note: the data are short\n") == 1
  assert "runs  2/2" in said and said.count("report: ") == 1


def test_a_failed_run_stops_no_other(shared, capfd):
  code, told = shared({"none": "failed"})
  assert code == 1 and len([line for line in told if "run" in line]) == 2


def test_a_run_whose_process_dies_is_taken_by_another(shared, capfd):
  code, told = shared({"none": "die once"})
  assert code == 0 and told.count("run [1/2] text none") == 2
  noise = capfd.readouterr().err
  assert noise.startswith("[1/2] text none: its process has died (SIGKILL);")


def test_a_run_that_always_kills_its_process_is_given_up(shared, capfd):
  code, told = shared({"none": "die"})
  said = capfd.readouterr().out
  assert code == 1 and told.count("run [1/2] text none") == FAULTS + 2
  assert "[2/2] text rope  8/8" in said and "report: " in said
  assert "[1/2] text none: not finished, its processes died; --workers=1" in said


def test_a_signal_lets_all_processes_save(shared, capfd, request):
  before = signal.signal(signal.SIGTERM, signal.default_int_handler)
  request.addfinalizer(lambda: signal.signal(signal.SIGTERM, before))
  code, told = shared({"none": "stop the parent"})
  said, noise = capfd.readouterr()
  assert code == 143 and f"stop {signal.SIGTERM}" in told
  assert noise.startswith("\nSIGTERM: saving after this dispatch;")
  assert "stopped by SIGTERM; the same command continues:\n" in said
  assert "--workers=2" in said and "report: " not in said


def test_a_run_of_another_command_is_waited_for(shared, capfd):
  code, told = shared({"none": "busy"})
  assert code == 0 and told.count("run [1/2] text none") == 2
  assert "waiting for runs of other processes: text none" in capfd.readouterr().out


@pytest.mark.parametrize(
  ("asked_for", "cores", "unfinished", "platform", "number"),
  [
    (0, 1, 12, "cpu", 8),
    (0, 3, 12, "cpu", 2),  # a run has three cores
    (0, 16, 12, "cpu", 1),
    (0, 1, 5, "cpu", 5),
    (0, 1, 0, "cpu", 1),
    (3, 1, 12, "cpu", 3),
    (12, 1, 12, "cpu", 12),
    (4, 1, 12, "gpu", 1),
  ],
)
def test_there_is_a_process_for_each_core_and_run(
  monkeypatch, tmp_path, asked_for, cores, unfinished, platform, number
):
  monkeypatch.setattr(process, "available", lambda: 8)
  monkeypatch.setattr(process, "cores", lambda: cores)
  monkeypatch.setattr(jax, "default_backend", lambda: platform)
  request = dataclasses.replace(asked(tmp_path), workers=asked_for)
  assert workers.number(request, unfinished) == number


def test_a_worker_stops_when_it_is_told_or_its_parent_dies(monkeypatch):
  ended = []
  monkeypatch.setattr(os, "_exit", ended.append)
  run = {"run": "[1/2] text none", "waited": False}
  lines, stop, names = f"{json.dumps(run)}\n", Stop(), queue.SimpleQueue()
  worker_process.listen(io.StringIO(lines), stop, names)
  assert names.get() == run and names.get() is None  # after this run it ends
  assert stop.received == signal.SIGTERM and ended == []
  stop = Stop()
  worker_process.listen(io.StringIO(lines + '{"stop": 2}\n'), stop, names)
  assert ended == [130]  # the parent ended too: a second signal
