"""The comparisons that a plan declares: what is refused, and what sweep.json keeps."""

import json

import pytest

from experiments.setup import primary, runs
from experiments.setup.plan import Chain, Grid, Group, Plan
from experiments.setup.primary import Comparisons
from experiments.setup.validate import ConfigError

LABELS = ["rope", "none", "t5"]


def test_pairs_of_each_kind():
  assert Comparisons().pairs(LABELS, "none") == [("rope", "none"), ("t5", "none")]
  assert Comparisons().pairs(["rope"], "none") == [("rope", "none")]
  every = Comparisons(contrasts="all pairs").pairs(LABELS, "none")
  assert every == [("rope", "none"), ("t5", "none"), ("t5", "rope")]
  named = Comparisons(contrasts=(("t5", "rope"), ("none", "t5"), ("rope", "alibi")))
  # Nothing is subtracted from the baseline, and a group may lack a run of a pair.
  assert named.pairs(LABELS, "none") == [("t5", "rope"), ("t5", "none")]


@pytest.mark.parametrize(
  "values",
  [
    {},
    {"measures": ("exact_match",), "lengths": ("trained", 4, 1.5), "part": "mean"},
    {"contrasts": "all pairs", "margin": 0.02},
    {"contrasts": (("a", "b"), ("c", "b")), "margin": {"accuracy": 0.02}},
    {"contrasts": ()},
  ],
)
def test_json_holds_all(values):
  declared = Comparisons(**values)
  assert primary.from_json(json.loads(json.dumps(declared.to_json()))) == declared
  assert primary.from_json(None) == Comparisons()


@pytest.mark.parametrize(
  "values,says",
  [
    ({"lengths": ("longst",)}, "length 'longst'; write 'trained', 'longest' or a"),
    ({"lengths": (0,)}, "length 0; write"),
    ({"lengths": ()}, "lengths=.*write a tuple"),
    ({"lengths": "longest"}, "lengths='longest'; write a tuple"),
    ({"measures": "accuracy"}, "measures='accuracy'; write a tuple"),
    ({"contrasts": "pairs"}, "contrasts='pairs'; write 'baseline', 'all pairs'"),
    ({"contrasts": (("a", "a"),)}, "or pairs of two runs"),
    ({"contrasts": (("a", "b", "c"),)}, "or pairs of two runs"),
    ({"margin": -0.1}, "margin=-0.1; write a positive number"),
    ({"margin": {"accuracy": 0}}, "margin=.*write a positive number"),
    ({"margin": True}, "margin=True; write a positive number"),
  ],
)
def test_what_is_impossible_is_one_sentence(values, says):
  with pytest.raises(ConfigError, match=says):
    Comparisons(**values)


@pytest.mark.parametrize(
  "values,says",
  [
    ({"margins": 1}, "no 'margins'.* Did you mean"),
    ([1], "are no object"),
    ({"contrasts": [["a"]]}, "or pairs of two runs"),
  ],
)
def test_a_damaged_sweep_json_is_one_sentence(values, says):
  with pytest.raises(ConfigError, match=says):
    primary.from_json(values)


def plan(**values):
  grid = Grid({"model.position": ("none", "rope")})
  one, other = Group("text", grid), Group("copy", Grid({"model.position": ("t5",)}))
  declared = Comparisons(**values)
  return Plan("Why?", Chain(one, other), baseline="none", comparisons=declared)


@pytest.mark.parametrize(
  "pair,says",
  [
    (("rop", "none"), "there is no run 'rop'.* 'rope'.* There is none, rope, t5"),
    (("t5", "none"), "t5 and none are in no group together"),
  ],
)
def test_a_run_that_does_not_exist_is_named(pair, says):
  with pytest.raises(ConfigError, match=says):
    runs.comparisons(plan(contrasts=(pair,)), [])


def test_pairs_of_runs_that_flags_removed_go_with_them(base):
  declared = plan(contrasts=(("rope", "none"),))
  todo = runs.expand(declared, base, {})
  assert runs.comparisons(declared, todo) == declared.comparisons
  todo = runs.expand(declared, base, {"model.position": "alibi"})
  assert runs.comparisons(declared, todo).contrasts == ()


@pytest.fixture
def base():
  from experiments.configs import quickstart

  return quickstart.get_config()


@pytest.mark.parametrize(
  "values,says",
  [
    ({"measures": ("acuracy",)}, "no measure 'acuracy'.*'accuracy'.*There is bits_per"),
    ({"lengths": (3,)}, "scored at 3x its training length; there is trained, longest"),
    ({"margin": {"loss": 0.1}}, "no measure 'loss'"),
  ],
)
def test_a_score_that_no_run_has_is_named_with_those_there_are(base, values, says):
  from experiments.configs import quickstart

  todo = runs.expand(quickstart.sweep(), base, {})
  runs.check_cells(Comparisons(measures=("exact_match",), lengths=(8,)), todo, ())
  with pytest.raises(ConfigError, match=says):
    runs.check_cells(Comparisons(**values), todo, ("bleu",))


def test_comparisons_are_no_part_of_an_id(base):
  ids = [run.id for run in runs.expand(plan(), base, {})]
  other = plan(contrasts="all pairs", margin=0.1)
  assert [run.id for run in runs.expand(other, base, {})] == ids
