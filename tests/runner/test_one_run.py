"""A single run beside a sweep: its name, its report, its command."""

import dataclasses

import pytest
from fake_runs import asked, lines

from experiments import run, sweep
from experiments.setup.plan import Group, OneAtATime, Plan
from transformer_jax.training.json_files import read_json


@pytest.mark.parametrize("damage", ["[]", "", '{"runs": {}}', '{"runs": [3]}'])
def test_one_run_keeps_a_damaged_sweep_json_aside(tmp_path, train, capsys, damage):
  (tmp_path / "sweep.json").write_text(damage)
  assert run.main(asked(tmp_path)) == 0
  assert (tmp_path / "sweep.json.damaged").read_text() == damage
  assert "the command of the sweep brings the others back" in capsys.readouterr().err
  assert len(read_json(tmp_path / "sweep.json")["runs"]) == 1


def test_one_run_joins_the_report_of_its_folder(tmp_path, train):
  assert sweep.main(asked(tmp_path)) == 0
  assert run.main(asked(tmp_path, {"model.position": "rope"})) == 0
  assert train.trained == ["none", "rope"]
  more = {"model.position": "alibi", "train.steps": 80}
  assert run.main(asked(tmp_path, more)) == 0
  labels = [entry["label"] for entry in read_json(tmp_path / "sweep.json")["runs"]]
  assert labels == ["none", "rope", "alibi steps=80"]


def test_one_run_of_the_plan_keeps_its_name(tmp_path):
  named = Plan("why?", Group("norms", OneAtATime({"model.norm": ("layernorm",)})))
  one = dataclasses.replace(asked(tmp_path, {"model.norm": "layernorm"}), plan=named)
  assert lines([run.chosen(one)]) == ["norms: norm=layernorm"]


def test_one_run_alone_has_a_report(tmp_path, train):
  many = {
    "train.batch_size": 8,
    "train.steps": 80,
    "model.layers": 1,
    "model.tied": False,
  }
  assert run.main(asked(tmp_path, many)) == 0
  sweep_json = read_json(tmp_path / "sweep.json")
  assert sweep_json["baseline"] == "rope and 4 other flags"


def test_the_command_of_a_run_reproduces_its_id(tmp_path, train):
  sweep.main(asked(tmp_path, {"task": "copy"}))
  entry = read_json(tmp_path / "sweep.json")["runs"][1]
  result = read_json(tmp_path / "runs" / entry["id"] / "result.json")
  python, *words = result["command"].split()
  assert (python, words[0], words[1]) == ("python", "-m", "experiments.run")
  overrides = {"task": "copy", "model.position": "rope"}
  assert [f"--config.{key}={value}" for key, value in overrides.items()] == sorted(
    words[3:], key=lambda word: "task" not in word
  )
  assert run.chosen(asked(tmp_path, overrides)).id == entry["id"]
