"""Matched budgets: sizes and steps solved to within 1% of the baseline's cost."""

import dataclasses
import json
import textwrap

import pytest
from fake_runs import BASE, asked

from experiments import sweep
from experiments.runner import solver, step_time
from experiments.runner.cost import flops, parameters, tokens
from experiments.setup import runs
from experiments.setup.matching import Match, Matched
from experiments.setup.plan import Chain, Grid, Group, Plan
from experiments.setup.validate import ConfigError, resolve
from transformer_jax.training.json_files import read_json

SMALL = {"task": "copy", "model.width": 16, "model.feedforward": 48}
SMALL |= {"model.layers": 1, "train.length": 8, "train.batch_size": 4}
SMALL |= {"evaluate.lengths": (1, 2), "evaluate.examples": 16}
FAT = """
  import dataclasses
  import jax.numpy as jnp
  from transformer_jax.positions import PositionalEncoding

  @dataclasses.dataclass(frozen=True)
  class Fat(PositionalEncoding):
    size: int = 600

    def init(self, key, dims):
      return {"rate_H": jnp.ones(dims.H), "table_N": jnp.ones(self.size)}

    def bias(self, params, pos_L, pos_M):
      distance_LM = jnp.abs(pos_L[:, None] - pos_M[None, :])
      return -(params["rate_H"] + params["table_N"].mean()) * jnp.log1p(distance_LM)
"""


def planned(match, positions=("none", "rope"), **overrides):
  variants = Grid({"model.position": positions})
  plan = Plan("why?", Group("copy", variants, SMALL | overrides), "none", match=match)
  return runs.expand(plan, BASE, {})


def solved(match, positions, timer=None, recorded=(), **overrides):
  todo = planned(match, positions, **overrides)
  return solver.solve(todo, "none", dict(recorded), timer)


def test_each_group_is_matched_on_its_own():
  """Groups of the same runs, as on the page: before, the second one was dropped."""
  variants = Grid({"model.position": ("none", "learned")})
  groups = Chain(
    Group("parameters", variants, SMALL, match="parameters"),
    Group("tokens", variants, SMALL, match="tokens"),
    Group("plain", variants, SMALL),
  )
  todo = runs.expand(Plan("why?", groups, "none"), BASE, {})
  lines = [(run.group, run.label) for run in solver.solve(todo, "none", {}, None)]
  assert lines == [
    *(("parameters", "none"), ("parameters", "learned")),
    *(("tokens", "none"), ("tokens", "learned")),
    *(("plain", "none"), ("plain", "learned")),
  ]
  # Without a match, two runs of one config are one line.
  twice = Chain(Group("a", variants, SMALL), Group("b", variants, SMALL))
  assert len(runs.expand(Plan("why?", twice, "none"), BASE, {})) == 2


@pytest.mark.parametrize("by", ["", "model.width", "model.layers"])
def test_parameters_of_an_own_encoding_are_those_of_the_baseline(
  by, tmp_path, monkeypatch
):
  (tmp_path / "fat.py").write_text(textwrap.dedent(FAT))
  monkeypatch.syspath_prepend(tmp_path)
  wide = {"model.width": 32, "model.layers": 2}
  none, fat = solved(Match("parameters", by), ("none", "fat:Fat"), **wide)
  counts = [parameters(run.config) for run in (none, fat)]
  assert abs(counts[1] / counts[0] - 1) <= 0.01
  assert none.matched is None and fat.matched.got == counts[1]
  assert fat.matched.want == counts[0]
  # What was solved stands in the overrides, so that the id says it.
  assert {*fat.matched.overrides} <= {*fat.overrides}
  assert fat.id == runs.run_id(resolve(BASE, fat.overrides))
  assert fat.config.model.feedforward != none.config.model.feedforward
  assert fat.config.model.width % fat.config.model.heads == 0


def test_the_width_of_rotated_heads_moves_in_even_steps():
  config = resolve(BASE, SMALL | {"model.position": "rope", "model.heads": 2})
  cost, wider = parameters, resolve(config, {"model.width": 28})
  solution = solver.by_size(config, "model.width", cost, cost(wider))
  assert solution.overrides == {"model.width": 28} and solution.got == solution.want
  between = (cost(wider) + cost(resolve(config, {"model.width": 32}))) / 2 + 1
  assert solver.by_size(config, "model.width", cost, between).overrides == {
    "model.width": 32
  }


def test_a_model_without_the_finer_knob_is_refused_in_one_sentence():
  recurrent = {"model.family": "recurrent", "model.kind": "encoder_decoder"}
  recurrent |= {"task": "pairs(copy)", "model.feedforward": 256}
  recurrent |= {"model.position": "none", "model.tied": False}
  plan = Plan(
    "why?",
    Group("copy", Grid({"model.width": (16, 23)}), SMALL | recurrent),
    "width=16",
    match=Match("parameters", by="model.layers"),
  )
  todo = runs.expand(plan, BASE, {"model.heads": 1})
  with pytest.raises(ConfigError) as caught:
    solver.solve(todo, "width=16", {}, None)
  assert str(caught.value).startswith(
    "copy width=23: no model.layers has the parameters of width=16 within 1%: the"
    " nearest is +"
  )
  assert str(caught.value).endswith("write Match('parameters', by='model.feedforward')")


def test_steps_give_the_flops_of_the_baseline():
  none, t5 = solved("flops", ("none", "transformer_xl"), **{"train.steps": 400})
  assert t5.matched.by == "train.steps" and t5.config.train.steps < 400
  assert abs(flops(t5.config) / flops(none.config) - 1) <= 0.01
  assert flops(t5.config) == pytest.approx(t5.matched.got)


def test_tokens_are_steps_times_batch_times_length():
  plan = Plan(
    "why?",
    Group("copy", Grid({"train.batch_size": (4, 6)}), SMALL | {"train.steps": 400}),
    "batch_size=4",
    match="tokens",
  )
  one, other = solver.solve(runs.expand(plan, BASE, {}), "batch_size=4", {}, None)
  assert one.matched is None
  # 266.7 steps: no dispatch of 40 comes near.
  changed = {"train.steps": 267, "train.steps_per_dispatch": 1}
  near = {"train.steps": 268, "train.steps_per_dispatch": 4}
  assert other.matched.overrides in (changed, near)
  assert abs(tokens(other.config) / tokens(one.config) - 1) <= 0.01


@pytest.mark.parametrize(
  ("target", "overrides"),
  [
    (400.0, {"train.steps": 400}),
    (441.0, {"train.steps": 440}),
    (460.0, {"train.steps": 460, "train.steps_per_dispatch": 20}),
    (99.0, {"train.steps": 99, "train.steps_per_dispatch": 1}),
  ],
)
def test_dispatches_are_as_long_as_the_steps_allow(target, overrides):
  assert solver.by_steps(BASE, 2.0, 2.0 * target).overrides == overrides


def test_seconds_are_measured_in_turn_and_then_read_from_the_record():
  times = {"none": 0.010, "rope": 0.0125}
  timer = lambda config, other: (
    times[config.model.position],
    times[other.model.position],
  )
  _, rope = solved("seconds", ("none", "rope"), timer)
  assert rope.matched.overrides == {"train.steps": 320}
  assert rope.matched.want == pytest.approx(4.0)
  record = json.loads(json.dumps(rope.matched.record()))
  recorded = {rope.matched.key: Matched.recorded(record)}
  times["rope"] = 0.02  # another load: a rerun trains the same runs
  _, again = solved("seconds", ("none", "rope"), timer, recorded)
  assert again == rope
  # A dry run measures nothing.
  assert solved("seconds", ("none", "rope"))[1].matched is None


def test_a_shorter_dispatch_is_measured_too():
  """Its overhead is part of each step: 400 steps of none, in dispatches of 40."""

  def time_of(config):
    return 0.0102 + 0.004 / config.train.steps_per_dispatch

  _, rope = solved(
    "seconds",
    ("none", "rope"),
    lambda config, other: (time_of(config), 0.010),
  )
  assert rope.config.train.steps_per_dispatch < 40
  assert rope.config.train.steps * time_of(rope.config) == pytest.approx(4.0, rel=0.01)
  assert rope.matched.got == rope.config.train.steps * time_of(rope.config)


def test_the_times_of_two_programs_are_medians_of_ratios():
  ours, theirs = iter([9, 2, 20, 2, 2, 2]), iter([9, 1, 10, 1, 1, 1])
  measured = step_time.in_turn(ours.__next__, theirs.__next__, rounds=5)
  assert measured == (2, 1)


@pytest.mark.parametrize(
  ("match", "says"),
  [
    ("parameter", "Did you mean 'parameters'?"),
    ("width", "Write one of parameters, flops, tokens, seconds"),
  ],
)
def test_a_match_that_is_none_says_what_is(match, says):
  with pytest.raises(ConfigError, match=says.replace("?", r"\?")):
    planned(match)
  with pytest.raises(ConfigError, match="Write train.steps"):
    Match("seconds", by="model.width")


def test_a_group_without_the_baseline_is_refused():
  more = Group("alone", Grid({"model.position": ("rope",)}), SMALL, match="flops")
  plan = Plan("why?", Chain(Group("copy", Grid({"model.position": ("none",)})), more))
  with pytest.raises(ConfigError, match="group 'alone' has no 'none', whose flops"):
    solver.solve(runs.expand(plan, BASE, {}), "none", {}, None)


def test_a_sweep_trains_what_was_solved_and_a_dry_run_shows_it(tmp_path, train, capsys):
  variants = Grid({"model.position": ("none", "learned")})
  plan = Plan("why?", Group("copy", variants, SMALL), "none", match="parameters")
  request = dataclasses.replace(asked(tmp_path), plan=plan)
  assert sweep.main(dataclasses.replace(request, dry_run=True)) == 0
  line = "parameters matched: model.feedforward="
  assert f"\n  {line}" in capsys.readouterr().out and not [*tmp_path.iterdir()]
  assert sweep.main(request) == 0
  assert f"copy learned: {line}" in capsys.readouterr().out
  none, learned = read_json(tmp_path / "sweep.json")["runs"]
  assert "matched" not in none and (tmp_path / "runs" / learned["id"]).is_dir()
  config = read_json(tmp_path / "runs" / learned["id"] / "config.json")
  solved_units = learned["matched"]["overrides"]["model.feedforward"]
  assert config["model.feedforward"] == solved_units < SMALL["model.feedforward"]
  made_with = read_json(tmp_path / "runs" / learned["id"] / "made_with.json")
  assert f"--config.model.feedforward={solved_units}" in made_with["command"]


def test_another_process_gets_the_runs_that_were_solved():
  _, learned = solved("parameters", ("none", "learned"))
  message = json.loads(json.dumps(learned.message()))
  received = runs.received(BASE, message)
  assert (received.id, received.label) == (learned.id, "learned")


def test_a_step_is_timed_on_a_training_of_its_own(tmp_path):
  config = resolve(BASE, SMALL | {"train.steps_per_dispatch": 2, "seeds": (0, 1)})
  step, reference = step_time.timer(tmp_path / "compiled")(config, config)
  assert 0 < step < 20 and 0 < reference < 20
