"""Rollouts of decision models: against a slow loop, in a result, by a command."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fake_sweep import QUICKSTART, edit, write_sweep
from random_parameters import of_model
from test_decision import SMALL, model

from experiments import rollouts
from experiments.configs import base
from experiments.reporting import comparisons, return_curves, score_tables
from experiments.runner import generated_texts, train
from experiments.runner.build import build
from experiments.setup.validate import ConfigError, resolve, validate
from transformer_jax.data.base import tasks
from transformer_jax.data.control import environments
from transformer_jax.data.control.control_set import ControlSet
from transformer_jax.evaluation import task_evaluations
from transformer_jax.evaluation.rollout_eval import Player, RolloutEval, starts
from transformer_jax.evaluation.task_evaluation import TaskEvaluation
from transformer_jax.positions.coords import Coords
from transformer_jax.spec import SpecError

TINY = {
  "task": SMALL,
  "seeds": (3, 5),
  "model.embedding": "trajectory(state=2, actions=2)",
  **{"model.width": 16, "model.heads": 2, "model.layers": 1, "model.feedforward": 16},
  **{"train.length": 4, "train.batch_size": 8, "train.steps": 2},
  **{"train.steps_per_dispatch": 2, "train.checkpoint_every": 2},
  **{"evaluate.lengths": (1,), "evaluate.examples": 8, "evaluate.batch_size": 4},
  **{"evaluate.rollouts": 2, "evaluate.target_returns": (20.0, 60.0)},
}


def slow_return(decoder, params, control, target, seed, K):
  """Returns the return of one episode, whose window is laid out anew in each step."""
  one = environments.gymnasium().make(control.environment)
  observation, _ = one.reset(seed=int(seed))
  history, left, done, total = [], target, False, 0.0
  apply = jax.jit(decoder.apply)
  while not done:
    seen = (observation[list(control.observed)] - control.mean_S) / control.std_S
    history.append([left / control.scale, *seen, 0])
    window = np.array(history[-K:], np.float32)[None]
    L = 3 * window.shape[1]
    order = jnp.arange(L)[None]
    step_BL = jnp.repeat(jnp.arange(len(history))[-K:], 3)[None]
    at = Coords(order, order // 3, order, jnp.ones_like(order), {"step_BL": step_BL})
    logits = apply({"params": params}, window, at)
    action = int(np.argmax(logits[0, L - 2]))
    history[-1][-1] = action
    observation, reward, ended, cut, _ = one.step(action)
    left, total, done = left - reward, total + reward, ended or cut
  return total


@pytest.mark.parametrize("position", ["timestep(learned)", "t5"])
def test_returns_are_those_of_a_slow_loop(position):
  task = tasks.build(SMALL)
  control, K = task.load().fitted, 4
  decoder = model(task, position, K)
  params = of_model(decoder, task.example(K), *coordinates(K))
  targets = np.array([20.0, 500.0])
  seeds = starts(2)
  player = Player(decoder, params, K)
  got = player.returns(control, targets, seeds)
  want = [
    slow_return(decoder, params, control, target, seed, K)
    for target, seed in zip(targets, seeds, strict=True)
  ]
  assert got.tolist() == want
  found = RolloutEval(most=2, targets=(20.0, 500.0)).returns(control, player)
  assert found.shape == (2, 2) and found[0, 0] == want[0] and found[1, 1] == want[1]


def coordinates(K):
  order = jnp.arange(3 * K)[None]
  return (Coords(order, order // 3, order, order * 0 + 1, {"step_BL": order // 3}),)


def test_scores_are_those_of_the_highest_target_and_of_all():
  task = tasks.build(SMALL)
  control = task.load().fitted

  @dataclasses.dataclass
  class Fixed:
    def returns(self, control, target_N, seeds):
      return np.where(target_N > 50, 40.0, 10.0) + np.arange(len(seeds)) % 2

  how = RolloutEval(most=2, targets=(20.0, 60.0))
  record = how.recorded(control, [Fixed()])
  assert record["scores"] == [{"return": 40.5, "target_error": (9.5 + 19.5) / 2}]
  assert record["curves"] == [[10.5, 40.5]] and record["kind"] == "rollouts"
  assert record["floors"]["its best"]["return"] == control.returns["data"][2]
  lines = how.lines(control, record["all"], (7,))
  assert lines[1] == {"seed": 7, "target": 60.0, "returns": [40.0, 41.0]}


def test_an_episode_with_nan_has_no_score():
  task = tasks.build(SMALL)
  decoder = model(task, "none")
  params = decoder.init(jax.random.key(2), task.example(4), *coordinates(4))["params"]
  params = jax.tree.map(lambda x: x * np.nan, params)
  how = RolloutEval(most=1, targets=(20.0,))
  record = how.record(task.load().fitted, [Player(decoder, params, 4)])
  assert record["scores"] == [{"return": None, "target_error": None}]
  assert record["curves"] == [[None]] and record["margins"] == [[None]]
  assert json.dumps({k: v for k, v in record.items() if k != "all"})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  """A sweep's folder with one finished run, and what its command prints."""

  folder = tmp_path_factory.mktemp("decision")
  config = resolve(base.get_config(), TINY)
  run = folder / "runs" / "one"
  run.mkdir(parents=True)
  return run, train.run(config, run, "tiny", stop=False)


def test_a_run_has_returns_beside_its_accuracy(finished):
  folder, result = finished
  assert [m["name"] for m in result["measures"]] == [
    "return",
    "target_error",
    "accuracy",
  ]
  written = result["written"]
  assert written["texts"] == 2 and written["targets"] == [20.0, 60.0]
  rows = json.loads((folder / "rollouts.json").read_text())
  assert [(row["seed"], row["target"]) for row in rows] == [
    (seed, target) for seed in (3, 5) for target in (20.0, 60.0)
  ]
  scores = {(x["seed"], x["measure"]): x["value"] for x in result["scores"]}
  for seed, row in zip((3, 5), rows[1::2], strict=True):
    assert scores[seed, "return"] == pytest.approx(np.mean(row["returns"]))
  assert json.loads((folder / "control.json").read_text())["observed"] == [0, 2]


def test_no_rollouts_are_made_where_none_are_asked_for():
  config = resolve(base.get_config(), TINY | {"evaluate.rollouts": 0})
  experiment = build(config)
  assert generated_texts.write(experiment, None, {}, None, None) == {}


def test_a_task_may_bring_an_evaluation_of_its_own():
  class Mine(TaskEvaluation):
    kind, measures, most = "mine", {"luck": "higher"}, 1

  @dataclasses.dataclass(frozen=True)
  class OwnTask:
    generation: object

  mine, settings = Mine(), {"rollouts": RolloutEval(1)}
  assert task_evaluations.chosen(OwnTask(mine), settings) is mine
  with pytest.raises(SpecError, match="'rolouts'. Did you mean 'rollouts'"):
    task_evaluations.chosen(OwnTask("rolouts"), settings)


@pytest.mark.parametrize(
  ("key", "value"),
  [("evaluate.rollouts", -1), ("evaluate.target_returns", (5.0, 2.0))],
)
def test_bad_settings_are_refused_with_their_key(key, value):
  with pytest.raises(ConfigError, match=f"{key}="):
    validate(resolve(base.get_config(), {key: value}), devices=1)


def test_targets_of_the_command_are_growing_numbers():
  assert rollouts.numbers(["100", "2e2"]) == (100.0, 200.0)
  for bad in (["a"], ["5", "5"], ["nan"]):
    with pytest.raises(ConfigError, match="--targets="):
      rollouts.numbers(bad)


@pytest.mark.parametrize("name", ["x.foo", "returns", "absent/x.png"])
def test_a_picture_that_cannot_be_is_refused_before_anything_plays(name, tmp_path):
  with pytest.raises(ConfigError, match=f"--picture=.*{name}: "):
    rollouts.check_picture(tmp_path / name)
  rollouts.check_picture(tmp_path / "returns.png")


def test_a_picture_names_the_seeds_by_their_numbers(tmp_path, monkeypatch):
  from matplotlib.figure import Figure

  drawn = []
  monkeypatch.setattr(Figure, "savefig", lambda self, path, **_: drawn.append(self))
  returns = {"data": [100.0, 50.0, 200.0]}
  control = ControlSet("CartPole-v1", (0,), None, None, 200.0, returns)
  found = rollouts.Rollouts(control, np.ones(1), np.ones((2, 1, 1)), seeds=(3, 5))
  rollouts.draw(found, tmp_path / "x.png")
  _, labels = drawn[0].axes[0].get_legend_handles_labels()
  assert labels[-2:] == ["seed 3", "seed 5"]


def played(best):
  """Returns what result.json holds of a run whose last seed had a NaN."""
  returns = {"pd(0.5)": [140.0, 90.0, 400.0], "data": [100.0, 50.0, 200.0]}
  curves = [[20.0, best], [30.0, best + 10], [None, None]]
  scores = [{"return": curve[1], "target_error": 1.0} for curve in curves]
  floors = {"random actions": 25.0, "the data": 100.0, "its best": 200.0}
  return {
    **{"kind": "rollouts", "texts": 16, "fingerprint": "x", "targets": [25.0, 200.0]},
    **{"signatures": ["CartPole-v1, gymnasium 1"], "search": "the most likely action"},
    "floors": {name: {"return": value} for name, value in floors.items()},
    "players": returns | {"random": [25.0, 9.0, 60.0]},
    **{"scores": scores, "curves": curves, "margins": [[2.0]] * 3, "samples": []},
    "below": [best <= 25] * 3,
  }


def test_a_report_has_the_policies_and_the_curve(tmp_path, monkeypatch):
  headline, variants = QUICKSTART["text"]
  two = {name: variants[name] for name in ("none", "rope")}
  workdir = write_sweep(tmp_path, {"text": (headline, two)})
  for n, best in enumerate((20.0, 190.0)):
    edit(workdir, f"text-{n:02d}", written=played(best))
  found = comparisons.find(workdir)
  notes = " ".join(score_tables.main_table(found, "text").notes)
  assert (
    "pd(0.5) 140.0 ± 90.0" in notes and "best episode of the data has 200.0" in notes
  )
  assert "No better than random actions, in one seed or more: none." in notes
  drawn = return_curves.return_curves(found, "text")
  rows = drawn.files["csv"].decode().splitlines()
  assert rows[0] == "variant,target return,lowest,mean,highest"
  assert "rope,200.0,190.0,195.0,200.0" in rows and len(rows) == 5
  assert return_curves.return_curves(comparisons.find(empty(tmp_path)), "text") is None


def empty(folder):
  """Returns the folder of a sweep without rollouts."""
  headline, variants = QUICKSTART["text"]
  (folder / "other").mkdir()
  return write_sweep(folder / "other", {"text": (headline, {"none": variants["none"]})})
