"""Plans: their labels, groups, baselines, and the flags that change them."""

import json
from pathlib import Path

import pytest
from fake_runs import BASE, POSITIONS, TWO_TASKS, WHY, expand, lines

from experiments import run
from experiments.configs import billion, pod, quickstart, standard
from experiments.setup import command_line, config_file, runs
from experiments.setup.identity import aged
from experiments.setup.plan import (
  Chain,
  Grid,
  Group,
  MinusOne,
  OneAtATime,
  Plan,
  Zipped,
)
from experiments.setup.validate import ConfigError, flatten, resolve, validate

GOLDEN = Path(__file__).parents[1] / "golden" / "quickstart.json"


def golden():
  """Returns what `golden/quickstart.json` has to say."""
  todo = runs.expand(quickstart.sweep(), quickstart.get_config(), {})
  ids = {f"{each.group}: {each.label}": each.id for each in todo}
  return json.loads(
    json.dumps({"config": aged(flatten(quickstart.get_config())), "runs": ids})
  )


def test_quickstart_is_the_one_we_published():
  assert golden() == json.loads(GOLDEN.read_text()), (
    "a default or the plan of the quickstart changed, so finished runs of users are"
    " stale and published numbers are of another config. If that is what you want:"
    " PYTHONPATH=.:tests python tests/setup/test_plan.py"
  )


@pytest.mark.parametrize(
  "config", [quickstart, standard, pod, billion], ids=lambda c: c.__name__
)
def test_every_run_of_every_plan_is_valid(config):
  todo = runs.expand(config.sweep(), config.get_config(), {})
  assert runs.baseline(config.sweep(), todo) == "none"
  for each in todo:
    validate(each.config, devices=16)


def test_plans_say_what_they_try():
  def labels(changes):
    return [each.label for each in changes]

  two = {"model.width": (64, 128), "model.heads": (4, 8)}
  assert labels(Grid(two)) == [
    f"width={w} heads={h}" for w in (64, 128) for h in (4, 8)
  ]
  assert labels(Zipped(two)) == ["width=64 heads=4", "width=128 heads=8"]
  assert labels(OneAtATime(two))[:3] == ["baseline", "width=64", "width=128"]
  norms = MinusOne({"model.norm": "layernorm", "model.tied": False})
  assert labels(norms) == ["baseline", "without norm", "without tied"]
  assert [len(each.overrides) for each in norms] == [2, 1, 1]
  assert labels(Chain(POSITIONS, Grid({"task": ("copy",)}))) == ["none", "rope", "copy"]


def test_a_config_runs_once():
  todo = expand(
    OneAtATime({"model.norm": ("rmsnorm", "layernorm")}), baseline="baseline"
  )
  assert lines(todo) == ["text: baseline", "text: norm=layernorm"]


def test_leaving_out_what_is_the_default_keeps_its_line():
  plan = MinusOne({"model.norm": "rmsnorm", "model.tied": False})
  todo = expand(plan, baseline="baseline")
  assert lines(todo) == ["text: baseline", "text: without norm", "text: without tied"]
  assert todo[0].id == todo[1].id != todo[2].id
  todo = expand(plan, {"model.tied": True}, baseline="baseline")  # the plan shrinks
  assert lines(todo) == ["text: baseline"]


@pytest.mark.parametrize(
  ("changes", "says"),
  [
    (Grid({"model.position": "rope"}), "write a tuple"),
    (Zipped({"model.width": (64, 128), "model.heads": (4,)}), "different numbers"),
    (Grid({"model.positon": ("rope",)}), "Did you mean 'model.position'?"),
    (Grid({"model.width": ("64",)}), "write a whole number"),
    (Grid({"seeds": ((0, "1"),)}), "write a tuple"),
    (Grid({"model.width": (True,)}), "write a whole number"),
    (
      Chain(Group("a", POSITIONS), Group("a", POSITIONS, {"train.batch_size": 8})),
      "both called 'none'",
    ),
  ],
)
def test_a_wrong_plan_says_what_is_right(changes, says):
  with pytest.raises(ConfigError, match=says.replace("?", r"\?")):
    expand(changes)


def test_a_baseline_must_be_in_the_plan():
  wrong = Plan("why?", POSITIONS, "non")
  with pytest.raises(ConfigError, match="Did you mean 'none'"):
    runs.baseline(wrong, runs.expand(wrong, BASE, {}))


def test_a_flag_that_removes_the_baseline_makes_the_first_run_it():
  todo = runs.expand(WHY, BASE, {"model.position": "alibi"})
  assert runs.baseline(WHY, todo) == "alibi"


@pytest.mark.parametrize(
  ("overrides", "expected"),
  [
    ({"train.steps": 80}, ["text: none", "text: rope", "copy: none", "copy: rope"]),
    ({"model.position": "rope"}, ["text: rope", "copy: rope"]),
    ({"model.position": "my:Own()"}, ["text: my:Own()", "copy: my:Own()"]),
    ({"task": "copy"}, ["copy: none", "copy: rope"]),
    ({"task": 'text(source="a.txt")'}, ["text: none", "text: rope"]),
  ],
)
def test_flags_hold_for_every_run(overrides, expected):
  todo = expand(TWO_TASKS, overrides)
  assert lines(todo) == expected
  for each in todo:
    flat = flatten(each.config)
    assert all(flat[key] == value for key, value in overrides.items())
    assert flat["train.batch_size"] == (8 if each.group == "copy" else 32)
    assert each.id == runs.run_id(resolve(BASE, each.overrides))


SIZES = Chain(
  Group("narrow", POSITIONS, {"task": "copy"}),
  Group("wide", POSITIONS, {"task": "copy", "model.width": 128}),
  Group("text", Grid({"model.position": ("none", "alibi")})),
)


@pytest.mark.parametrize(
  ("overrides", "group"),
  [
    ({"task": "copy", "train.clip": 0.5}, "narrow"),
    ({"task": "copy", "train.clip": 0.5, "model.width": 128}, "wide"),
    ({"train.clip": 0.5}, "text"),
    ({"task": "parity"}, "parity"),
    ({"task": "text(source='a.txt')"}, "text(source='a.txt')"),
  ],
)
def test_a_run_with_other_flags_joins_the_group_most_like_it(overrides, group):
  path = config_file.CONFIGS / "quickstart.py"
  which = Plan("why?", SIZES, "none"), Path("unused"), True, False
  request = command_line.Request(path, BASE, overrides | {"train.steps": 80}, *which)
  assert run.chosen(request).group == group


def test_a_flag_for_the_task_moves_runs_to_the_group_most_like_them():
  assert {*lines(expand(SIZES, {"task": "copy"}))} == {
    "narrow: none", "narrow: rope", "narrow: alibi", "wide: none", "wide: rope",
  }  # fmt: skip


if __name__ == "__main__":
  GOLDEN.parent.mkdir(exist_ok=True)
  GOLDEN.write_text(json.dumps(golden(), indent=2) + "\n")
