"""Workers of other machines that come, go and differ; here fake ones of this one."""

import dataclasses
import json
from pathlib import Path

import pytest
from fake_runs import BASE, POSITIONS, asked, expand

from experiments.runner import (
  handshake,
  run_folder,
  spread_workers,
  worker_connection,
  workers,
)
from experiments.runner.launchers import launcher_of
from experiments.runner.launchers.base import check_platforms
from experiments.runner.spread_workers import NoRoomError, SpreadWorkers
from experiments.runner.worker_connection import LocalProcess, RefusedError
from experiments.setup.validate import ConfigError
from transformer_jax.training.signals import Stop

FAKE = str(Path(__file__).parent / "fake_worker.py")


@pytest.fixture
def spread(tmp_path, monkeypatch):
  """Works on two runs with fake workers; returns (states, what they were told)."""
  told = tmp_path / "told"
  monkeypatch.setattr(worker_connection, "COMMAND", (FAKE,))
  monkeypatch.setattr(workers, "POLL", 0.01)
  monkeypatch.setattr(spread_workers, "POLL", 0.01)
  monkeypatch.setattr(spread_workers, "AGAIN", 0.01)
  monkeypatch.setattr(handshake, "_own", lambda todo: {"versions": {}})
  monkeypatch.setenv("TOLD", str(told))

  def run(does=None, connect=LocalProcess, count=2):
    monkeypatch.setenv("DOES", json.dumps(does or {}))
    request = asked(tmp_path / "out")
    todo = expand(POSITIONS)
    folders = {
      f"[{n}/2] text {r.label}": tmp_path / r.id for n, r in enumerate(todo, 1)
    }
    loop = SpreadWorkers(request, todo, folders, count, Stop(), connect)
    states = [outcome.state for outcome in loop.outcomes()]
    return states, sorted(
      line for line in told.read_text().splitlines() if "run" in line
    )

  return run


BOTH = ["run [1/2] text none", "run [2/2] text rope"]


def test_a_run_goes_on_elsewhere_when_its_machine_dies(spread, capfd):
  assert spread({"none": "die once"}) == (["finished"] * 2, [BOTH[0], *BOTH])
  assert "[1/2] text none: its process has died (SIGKILL)" in capfd.readouterr().err


def test_a_run_that_always_kills_its_process_is_given_up(spread, capfd):
  states, told = spread({"none": "die"})
  assert sorted(states) == ["finished", "interrupted"]
  assert told.count(BOTH[0]) == run_folder.FAULTS + 1
  assert "[1/2] text none: not finished, its processes died 4" in capfd.readouterr().out


def test_a_run_that_another_machine_claims_is_tried_until_it_is_free(spread):
  states, told = spread({"none": "busy"})
  assert states == ["finished"] * 2 and told == [BOTH[0], *BOTH]


def test_runs_wait_for_room_on_a_machine(spread):
  full = [True, True, False, True, False]

  def connect(words):
    if full and full.pop(0):
      raise NoRoomError
    return LocalProcess(words)

  assert spread(connect=connect) == (["finished"] * 2, BOTH)


def test_a_worker_that_may_not_work_is_left_out_and_the_others_go_on(spread, capfd):
  bad = [True]

  def connect(words):
    if bad and bad.pop():
      raise RefusedError("b has jax 0.9")
    return LocalProcess(words)

  assert spread(connect=connect) == (["finished"] * 2, BOTH)
  assert capfd.readouterr().err.count("b has jax 0.9") == 1


def test_a_sweep_without_any_worker_that_may_work_is_refused(spread):
  def connect(words):
    raise RefusedError("b has jax 0.9")

  with pytest.raises(ConfigError, match=r"^b has jax 0.9$"):
    spread(connect=connect)


def test_a_worker_with_other_versions_code_or_folders_is_refused(tmp_path, monkeypatch):
  todo = expand(POSITIONS)
  wanted = handshake.expected(tmp_path, todo)
  wanted = json.loads(json.dumps({**wanted, "host": "a"}))
  assert handshake.refusal(wanted, tmp_path, todo) == ""
  monkeypatch.setattr("socket.gethostname", lambda: "b")
  for name in ("jax", "python"):
    versions = {**wanted["versions"], name: "0.9.0"}
    here = wanted["versions"][name]
    assert handshake.refusal({**wanted, "versions": versions}, tmp_path, todo) == (
      f"the worker on b has {name} {here}, the command on a has 0.9.0: install the same"
      " on both"
    )
  code = {**wanted["code"], "project": "0123"}
  assert "check out the same commit on both" in handshake.refusal(
    {**wanted, "code": code}, tmp_path, todo
  )
  (tmp_path / "other").mkdir()
  assert handshake.refusal(wanted, tmp_path / "other", todo).startswith(
    "the worker on b does not see the files of a in --workdir="
  )


def test_a_later_command_leaves_the_workers_of_an_earlier_one(tmp_path):
  """As jobs that are queued when the second command starts."""
  todo = expand(POSITIONS)
  wanted = [handshake.expected(tmp_path, todo) for _ in range(2)]
  assert [handshake.refusal(each, tmp_path, todo) for each in wanted] == ["", ""]


@pytest.mark.parametrize("spec", ["ray(gpus=1)", "ray(tpus=4)", "slurm(gpus=2)"])
def test_workers_do_not_leave_their_devices_unused(spec, tmp_path, monkeypatch):
  monkeypatch.setenv("JAX_PLATFORMS", "cpu")
  with pytest.raises(ConfigError, match="s=., but JAX_PLATFORMS=cpu is set here"):
    launcher_of(spec).check(asked(tmp_path))
  monkeypatch.setenv("JAX_PLATFORMS", "cuda,cpu")
  check_platforms("ray", gpus=1, tpus=0)


def test_a_real_worker_is_refused_before_it_trains(tmp_path):
  """The whole way: process, message, sentence; JAX is not even started."""
  request = dataclasses.replace(asked(tmp_path), base=BASE)
  todo = expand(POSITIONS)
  expected = handshake.expected(tmp_path, todo)
  expected["versions"]["jax"] = "0.9.0"
  connection = LocalProcess(worker_connection.words(request))
  first = {"todo": [run.message() for run in todo], "expected": expected}
  connection.send(json.dumps(first))
  (event,) = map(json.loads, connection.lines())
  assert "the command on" in event["refused"] and "0.9.0" in event["refused"]
  connection.close()
  assert connection.end() == "exit code 2" and not (tmp_path / "runs").exists()
