"""The loop over a sweep's runs: order, failures, signals, dry runs."""

import dataclasses
import os
import signal
from pathlib import Path

import pytest
from fake_runs import BASE, TWO_TASKS, WHY, asked, crash

from experiments import sweep
from experiments.configs import quickstart
from experiments.runner import run_folder, sweep_loop
from experiments.setup import config_file, runs
from experiments.setup.plan import Plan
from experiments.setup.validate import ConfigError
from transformer_jax.training.json_files import read_json, write_json


def test_some_groups_run_and_the_report_plans_for_all(tmp_path, train):
  request = dataclasses.replace(
    asked(tmp_path), plan=Plan("why?", TWO_TASKS, "none"), groups=("copy",)
  )
  sweep.main(request)
  groups = {entry["group"] for entry in read_json(tmp_path / "sweep.json")["runs"]}
  assert groups == {"text", "copy"}
  assert len([*(tmp_path / "runs").iterdir()]) == len([*TWO_TASKS]) // 2


def test_a_sweep_begins_with_its_question_and_how_long_it_takes(
  tmp_path, train, capsys
):
  published = dataclasses.replace(WHY, cost="about 3 minutes on two cores")
  request = dataclasses.replace(asked(tmp_path), plan=published)
  begins = "why?\nAll runs take about 3 minutes on two cores. Stopping loses nothing"
  sweep.main(request)
  assert capsys.readouterr().out.startswith(begins)
  # With other settings they take another time, and a dry run takes none.
  overrides = {"model.width": 32}
  for other in (
    dataclasses.replace(request, overrides=overrides, workdir=tmp_path / "other"),
    dataclasses.replace(request, dry_run=True),
  ):
    sweep.main(other)
    assert "All runs take" not in capsys.readouterr().out
  assert (
    quickstart.sweep().cost
    in (config_file.CONFIGS.parents[1] / "README.md").read_text()
  )


def test_a_sweep_goes_on_after_a_failure_and_reports(tmp_path, train, capsys):
  train.does["none"] = crash
  assert sweep.main(asked(tmp_path)) == 1
  said = capsys.readouterr().out
  assert "[1/2] text none: failed: RuntimeError: out of luck" in said
  assert f"report: {tmp_path}" in said and (tmp_path / "report.html").exists()
  planned = read_json(tmp_path / "sweep.json")
  assert planned["groups"] == ["text"] and planned["baseline"] == "none"

  del train.does["none"]
  assert sweep.main(asked(tmp_path)) == 0
  assert train.trained == ["none", "rope", "none"]
  assert "text rope: finished before" in capsys.readouterr().out


@pytest.mark.parametrize(
  ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
def test_a_signal_ends_a_sweep_that_continues_later(
  tmp_path, train, capsys, number, code, request
):
  # A test run in the background ignores SIGINT, and so would the sweep.
  before = signal.signal(number, signal.default_int_handler)
  request.addfinalizer(lambda: signal.signal(number, before))

  def stopped(stop):
    os.kill(os.getpid(), number)
    assert stop
    return None

  train.does["none"] = stopped
  assert sweep.main(asked(tmp_path)) == code
  assert train.trained == ["none"]
  assert f"--workdir={tmp_path}" in capsys.readouterr().out
  del train.does["none"]
  assert sweep.main(asked(tmp_path)) == 0


def test_a_run_that_kills_its_process_comes_last(tmp_path, train):
  none, rope = runs.expand(WHY, BASE, {})
  status = {"state": "running", "kills": run_folder.KILLS - 1}
  write_json(run_folder.folder(tmp_path, none) / "status.json", status)
  assert sweep.main(asked(tmp_path)) == 0
  assert train.trained == ["rope", "none"]


@pytest.mark.parametrize("workdir", ["/", "~"])
def test_runs_do_not_go_into_the_root_or_the_home_folder(workdir, train):
  before = {*Path(workdir).expanduser().iterdir()}
  with pytest.raises(ConfigError, match="a folder of their own; write for example"):
    sweep.main(asked(Path(workdir).expanduser()))
  assert {*Path(workdir).expanduser().iterdir()} == before


def test_a_user_without_a_home_may_run(tmp_path, train, monkeypatch):
  monkeypatch.delenv("HOME")
  monkeypatch.setattr("pwd.getpwuid", lambda number: {}[number])
  sweep_loop.begin(tmp_path / "runs", lambda: {"runs": []})
  assert read_json(tmp_path / "runs" / "sweep.json") == {"runs": []}


def test_a_sweep_with_a_wrong_run_starts_none(tmp_path, train):
  wrong = asked(tmp_path, {"model.position": "rop", "model.width": 63})
  with pytest.raises(ConfigError) as caught:
    sweep.main(wrong)
  assert len(caught.value.problems) == 2 and not [*tmp_path.iterdir()]


def test_a_run_that_no_model_can_be_built_of_is_refused_too(tmp_path, train):
  with pytest.raises(ConfigError, match="has 8 positions"):
    sweep.main(asked(tmp_path, {"model.position": "learned(max_positions=8)"}))


def test_a_dry_run_prints_and_writes_nothing(tmp_path, train, capsys):
  assert sweep.main(asked(tmp_path, dry_run=True)) == 0
  said = capsys.readouterr().out
  assert "1,234 parameters (4 positional); 5,000,000 FLOPs per token" in said
  assert "1.0 MiB of parameters and moments; attention dense; 2.0 MiB to train" in said
  assert "not pallas: no GPU" in said and "no data is read" in said
  assert "train.steps = 400" in said and "model.position='rope'" in said
  assert not train.trained and not [*tmp_path.iterdir()]
