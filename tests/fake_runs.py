"""Plans of few runs, and a stand-in for training them."""

import sys
import time
import types

import pytest
from undrawn import leave_out

from experiments.configs import base
from experiments.runner import run_folder, waiting
from experiments.setup import command_line, config_file, runs
from experiments.setup.plan import Chain, Grid, Group, Plan

BASE = base.get_config()
POSITIONS = Grid({"model.position": ("none", "rope")})
WHY = Plan("why?", POSITIONS, "none")
TWO_TASKS = Chain(
  Group("text", POSITIONS),
  Group("copy", POSITIONS, {"task": "copy", "train.batch_size": 8}),
)


def expand(changes, overrides=None, baseline="none"):
  return runs.expand(Plan("why?", changes, baseline), BASE, overrides or {})


def lines(todo):
  return [f"{each.group}: {each.label}" for each in todo]


ONE = expand(POSITIONS)[1]
FACTS = {"commit": "abc", "command": "python -m experiments.run"}


def perform(workdir, train=lambda folder: {"seeds": [0]}, each=ONE, **more):
  return run_folder.perform(each, workdir, train, FACTS, **more)


def crash(folder):
  raise RuntimeError("out of luck")


SCORES = {
  "seeds": [0, 1],
  "measures": [{"name": "accuracy", "better": "higher"}],
  "train_length": 64,
  "lengths": [64],
  "scores": [
    {
      "seed": s,
      "length": 64,
      "measure": "accuracy",
      "part": "mean",
      "value": 0.5 + s / 9,
    }
    for s in (0, 1)
  ],
}
DESCRIBED = {"parameters": 1234, "position_parameters": 4, "flops_per_token": 5e6}
DESCRIBED |= {
  "state_bytes": 2**20,
  "peak_bytes": 2**21,
  "core": "dense",
  "core_refusals": {"pallas": "no GPU"},
}


def asked(tmp_path, overrides=None, dry_run=False):
  path = config_file.CONFIGS / "quickstart.py"
  return command_line.Request(
    path, BASE, overrides or {}, WHY, tmp_path, dry_run, False
  )


@pytest.fixture
def train(monkeypatch):
  """Stands for experiments/runner/train.py; `train.does` says what a run does.

  Figures of its reports are composed, and rendered if `train.rendered` has their kind.
  """
  fake = types.ModuleType("experiments.runner.train")
  fake.does, fake.trained, fake.rendered = {}, [], []
  leave_out(monkeypatch, fake.rendered)

  def one(config, folder, name, stop):
    fake.trained.append(config.model.position)
    return fake.does.get(config.model.position, lambda stop: SCORES)(stop)

  fake.run = one
  fake.describe = lambda config, compiled: DESCRIBED
  monkeypatch.setitem(sys.modules, "experiments.runner.train", fake)
  return fake


@pytest.fixture
def while_waiting(monkeypatch):
  """Takes what another process does once this one has found its run busy and waits."""

  def takes(action):
    left = [action]
    sleep = lambda seconds: left.pop()() if left else None
    clock = types.SimpleNamespace(monotonic=time.monotonic, sleep=sleep)
    monkeypatch.setattr(waiting, "time", clock)

  return takes
