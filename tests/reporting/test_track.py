"""Runs copied to Weights & Biases; a stand-in takes what the package would."""

import json
import sys
import types

import fake_sweep
import pytest

from experiments import track
from experiments.reporting import load
from experiments.reporting.load import ReportError

FEW = {"text": ("bits_per_byte", {"none": (3.0, 3.1), "rope": (2.5, 2.8)})}


class Tracked:
  """Takes what is logged, and refuses what the package refuses."""

  def __init__(self, step, **given):
    self.given, self.step = given, step
    self.rows, self.summary, self.code = {}, {}, None

  def log(self, values, step):
    assert step not in self.rows and step > self.step
    self.rows[step] = values

  def finish(self, exit_code):
    self.code = exit_code


@pytest.fixture
def wandb(monkeypatch):
  """Stands for the package; `wandb.step` is that of runs which were copied before."""
  fake = types.ModuleType("wandb")
  fake.runs, fake.step = [], 0

  def init(**given):
    fake.runs.append(Tracked(fake.step, **given))
    return fake.runs[-1]

  fake.init = init
  monkeypatch.setitem(sys.modules, "wandb", fake)
  return fake


def copy(wandb, workdir, online=False):
  runs = load.read(workdir).runs
  return sum(track.copy(wandb, run, "mine", workdir, online) for run in runs)


def test_each_seed_is_a_run_with_all_its_rows_and_scores(tmp_path, wandb):
  fake_sweep.write_sweep(tmp_path, FEW, seeds=(0, 2), lengths=(64, 128))
  assert copy(wandb, tmp_path) == 4
  given = wandb.runs[-1].given
  assert (given["id"], given["name"]) == ("text-01-2", "rope seed 2")
  assert (given["project"], given["mode"]) == ("mine", "offline")
  assert given["config"]["model.position"] == "rope" and given["config"]["seed"] == 2
  lines = (tmp_path / "runs" / "text-01" / "metrics.jsonl").read_text().splitlines()
  rows = [row for row in map(json.loads, lines) if row["seed"] == 2]
  assert wandb.runs[-1].rows == {row["step"]: {"loss": row["loss"]} for row in rows}
  result = json.loads((tmp_path / "runs" / "text-01" / "result.json").read_text())
  scores = {
    (x["length"], x["part"]): x["value"] for x in result["scores"] if x["seed"] == 2
  }
  summary = wandb.runs[-1].summary
  assert summary["scores/bits_per_byte/128"] == scores[128, "mean"]
  assert summary["scores/bits_per_byte_last_quarter/64"] == scores[64, "last_quarter"]
  assert summary["state"] == "finished" and wandb.runs[-1].code == 0


def test_a_second_copy_adds_what_is_new(tmp_path, wandb):
  fake_sweep.write_sweep(tmp_path, FEW, seeds=(0,), lengths=(64, 128))
  wandb.step = 360
  copy(wandb, tmp_path, online=True)
  assert [*wandb.runs[0].rows] == [400] and wandb.runs[0].given["mode"] == "online"


def test_a_run_that_never_began_is_left_out_and_a_failed_one_says_so(tmp_path, wandb):
  fake_sweep.write_sweep(tmp_path, FEW, seeds=(0,), lengths=(64, 128))
  (tmp_path / "runs" / "text-00" / "metrics.jsonl").unlink()
  (tmp_path / "runs" / "text-01" / "result.json").unlink()
  fake_sweep.edit(tmp_path, "text-01", "status.json", state="failed")
  assert copy(wandb, tmp_path) == 1
  assert wandb.runs[0].summary == {"state": "failed"} and wandb.runs[0].code == 1


def test_without_the_package_one_sentence_says_what_to_install(monkeypatch):
  monkeypatch.setitem(sys.modules, "wandb", None)
  with pytest.raises(ReportError, match=r"^W&B cannot be imported .*\.\[wandb\] adds"):
    track.library()
