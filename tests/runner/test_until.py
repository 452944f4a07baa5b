"""Sweeps that add seeds until they are resolved: who gets them, what is refused."""

import dataclasses
import functools
import os
import signal

import numpy as np
import pytest
from fake_runs import SCORES, asked
from test_more_seeds import TINY

from experiments import run, sweep
from experiments.reporting import comparisons, sampling
from experiments.runner import provenance, seed_blocks, sweep_loop
from experiments.setup import config_file
from experiments.setup.looks import declared
from experiments.setup.plan import Chain, Grid, Group, Plan
from experiments.setup.primary import Comparisons
from experiments.setup.tuning import Tune
from experiments.setup.validate import ConfigError
from transformer_jax.training.json_files import read_json, write_json

# Means of four variants, in a noise of 0.02: far, near, and as good as the baseline.
MEANS = {"none": 3.0, "rope": 2.0, "t5": 2.96, "alibi": 3.0005}
POSITIONS = Grid({"model.position": (*MEANS,)})
FACTS = functools.cache(provenance.facts)  # commit and sources stay during a test
PLAN = Plan("why?", Chain(Group("text", POSITIONS)), "none")


@pytest.mark.slow
def test_a_sweep_that_trains_is_resolved_and_reported(tmp_path, capsys):
  positions = Grid({"model.position": ("none", "rope")})
  plan = Plan("why?", Chain(Group("copy", positions)), "none")
  path = config_file.CONFIGS / "base.py"  # which workers read again
  request = until(tmp_path, TINY, plan=plan, max_seeds=4, workers=2, path=path)
  assert sweep.main(request) == 0
  said, counts = capsys.readouterr().out, seeds_of(tmp_path)
  assert said.rstrip().endswith(f"report: {tmp_path / 'report.html'}")
  assert "until resolved: " in said and counts["none"] == counts["rope"] in (3, 4)
  page = (tmp_path / "report.html").read_text()
  assert "looks were declared at 3 and 4 seeds" in page
  assert sweep.main(request) == 0
  assert "2 of them finished before" in capsys.readouterr().out


@pytest.fixture
def trained(train, monkeypatch):
  """Stands for training: scores by variant and seed; lists what was trained."""
  train.did, train.stops = [], {}

  def one(config, folder, name, stop):
    position, seeds = config.model.position, tuple(config.seeds)
    if does := train.stops.pop((position, len(seeds)), None):
      return does(stop)
    train.did.append((position, seeds))
    for block in seed_blocks.blocks(folder, seeds):
      (block.checkpoints / "400").mkdir(parents=True, exist_ok=True)
    return SCORES | {
      "seeds": [*seeds],
      "lengths": [64, 128],
      "measures": [{"name": "bits_per_byte", "better": "lower"}],
      "seconds": {"train": 2.0 * len(seeds)},
      "scores": [score(position, seed, n) for n in (64, 128) for seed in seeds],
    }

  train.run = one
  monkeypatch.setattr(sweep_loop, "report", lambda *_: True)
  monkeypatch.setattr(provenance, "facts", FACTS)
  return train


def score(position, seed, length):
  rng = np.random.default_rng([seed, length, [*MEANS].index(position)])
  place = {"seed": seed, "length": length, "measure": "bits_per_byte", "part": "mean"}
  return place | {"value": MEANS[position] + 0.02 * rng.standard_normal()}


def until(tmp_path, overrides=None, **changes):
  request = dataclasses.replace(asked(tmp_path, overrides), plan=PLAN)
  return dataclasses.replace(request, **{"until": "resolved", **changes})


def seeds_of(workdir):
  """Returns {variant: number of its seeds}."""
  found = comparisons.find(workdir)
  return {run.label: len(run.fact("seeds")) for run in found.sweep.runs}


def test_seeds_go_where_a_comparison_is_open(tmp_path, trained, capsys):
  assert sweep.main(until(tmp_path)) == 0
  said, counts = capsys.readouterr().out, seeds_of(tmp_path)
  # A clear difference needs no more; the baseline is in every comparison.
  assert counts["rope"] == 3 and counts["t5"] > 3
  assert counts["none"] == max(counts.values()) <= 20
  # A run trains once at each of its looks, and is asked for the new seeds alone.
  looks = read_json(tmp_path / "sweep.json")["looks"]
  assert looks["counts"] == [3, 4, 6, 8, 11, 15, 20] and not looks["late"]
  for label, count in counts.items():
    taken = [len(seeds) for name, seeds in trained.did if name == label]
    assert taken == [n for n in looks["counts"] if n <= count]
  outlook = sampling.outlook(comparisons.find(tmp_path))
  assert outlook.open == [] and {c.label for c in outlook.resolved} >= {"rope", "t5"}
  assert {c.label for c in (*outlook.futile, *outlook.exhausted)} == {"alibi"}
  assert "4 runs in " in said
  first = next(x for x in said.splitlines() if x.startswith("until resolved: 2 of 6"))
  assert "text t5" in first and "to 4 seeds; about 6 s of computing" in first
  assert said.splitlines()[-1] == f"until resolved: {outlook.sentence(20)}"
  # Nothing is left to do.
  trained.did.clear()
  assert sweep.main(until(tmp_path)) == 0 and trained.did == []


def test_a_limit_ends_it_earlier(tmp_path, trained, capsys):
  assert sweep.main(until(tmp_path, max_seeds=4)) == 0
  assert max(seeds_of(tmp_path).values()) == 4
  assert read_json(tmp_path / "sweep.json")["looks"]["counts"] == [3, 4]
  assert "2 would need more than 4 seeds" in capsys.readouterr().out
  # Another command may stop earlier than the schedule, and never goes on after it.
  assert sweep.main(until(tmp_path, max_seeds=3)) == 0
  with pytest.raises(ConfigError, match="declares looks at 3, 4 seeds, and further"):
    sweep.main(until(tmp_path, max_seeds=5))
  assert read_json(tmp_path / "sweep.json")["looks"]["counts"] == [3, 4]


def test_a_smaller_limit_stops_within_a_recorded_schedule(tmp_path, trained):
  looks = declared((0, 1, 2), 20).to_json()
  write_json(tmp_path / "sweep.json", {"looks": looks})
  assert sweep.main(until(tmp_path, max_seeds=5)) == 0
  assert max(seeds_of(tmp_path).values()) == 4
  counts = read_json(tmp_path / "sweep.json")["looks"]["counts"]
  assert counts == list(looks["counts"])


@pytest.mark.parametrize("at", [("none", 4), ("rope", 3)])
def test_a_signal_ends_it_and_the_same_command_continues(
  tmp_path, trained, capsys, at, request
):
  before = signal.signal(signal.SIGTERM, signal.default_int_handler)
  request.addfinalizer(lambda: signal.signal(signal.SIGTERM, before))
  whole, broken = tmp_path / "whole", tmp_path / "broken"
  assert sweep.main(until(whole)) == 0
  trained.stops[at] = lambda stop: os.kill(os.getpid(), signal.SIGTERM)
  assert sweep.main(until(broken)) == 143
  said = capsys.readouterr().out
  assert "--until=resolved" in said.rpartition("continues:\n")[2]
  assert sweep.main(until(broken)) == 0
  assert seeds_of(broken) == seeds_of(whole)
  found = [comparisons.find(folder) for folder in (whole, broken)]
  p = [[c.p_holm for c in each.comparisons] for each in found]
  assert p[0] == p[1]


def test_a_run_that_fails_at_a_look_stops_no_other(tmp_path, trained, capsys):
  def fails(stop):
    raise RuntimeError("out of luck")

  trained.stops["t5", 4] = fails
  assert sweep.main(until(tmp_path)) == 1
  found = comparisons.find(tmp_path)
  adding = {run.label: run.adding for run in found.sweep.runs}
  assert adding.pop("t5") == "failed: RuntimeError: out of luck"  # its seeds stand
  assert {*adding.values()} == {""}
  assert sweep.main(until(tmp_path)) == 0
  assert seeds_of(tmp_path)["t5"] > 3


def test_groups_are_added_to_alone_and_count_from_the_first(tmp_path, trained):
  both = Chain(Group("text", POSITIONS), Group("copy", POSITIONS, {"task": "copy"}))
  plan = Plan("why?", both, "none")
  assert sweep.main(until(tmp_path, plan=plan, groups=("copy",))) == 0
  found = comparisons.find(tmp_path)
  assert {run.group for run in found.finished} == {"copy"}
  # Three comparisons at two lengths wait for a group without a result.
  tested = [c for c in found.comparisons if c.p is not None]
  least = min(c.p for c in tested)
  (first, *_) = [c for c in tested if c.p == least]
  assert first.p_holm == pytest.approx(12 * least)
  assert sweep.main(until(tmp_path, plan=plan)) == 0
  assert len(comparisons.find(tmp_path).finished) == 8


def test_a_plain_command_keeps_the_schedule(tmp_path, trained):
  assert sweep.main(until(tmp_path, max_seeds=8)) == 0
  looks, counts = read_json(tmp_path / "sweep.json")["looks"], seeds_of(tmp_path)
  assert sweep.main(until(tmp_path, until="", max_seeds=None)) == 0
  assert read_json(tmp_path / "sweep.json")["looks"] == looks
  assert seeds_of(tmp_path) == counts
  # Seeds for all runs, among those of the schedule: its looks are reached.
  four = {"seeds": (0, 1, 2, 3)}
  assert sweep.main(until(tmp_path, four, until="", max_seeds=None)) == 0
  assert seeds_of(tmp_path)["rope"] == 4
  for words in ({"until": "", "max_seeds": None}, {}):
    with pytest.raises(ConfigError, match="no verdict would read seed 9; choose"):
      sweep.main(until(tmp_path, {"seeds": (0, 9)}, **words))


def test_looks_that_follow_first_results_say_so(tmp_path, trained):
  assert sweep.main(until(tmp_path, until="")) == 0
  assert "looks" not in read_json(tmp_path / "sweep.json")
  assert sweep.main(until(tmp_path, max_seeds=4)) == 0
  assert read_json(tmp_path / "sweep.json")["looks"]["late"]
  lines = sampling.sentences(comparisons.find(tmp_path))
  assert "judged once, at 3 seeds, the error of all is up to 7.9%, not 5%" in lines[-1]


def test_a_damaged_sweep_json_loses_no_schedule(tmp_path, trained):
  assert sweep.main(until(tmp_path, max_seeds=8)) == 0
  plan = tmp_path / "sweep.json"
  looks = read_json(plan)["looks"]
  plan.write_text(plan.read_text()[:-3])
  with pytest.raises(ConfigError, match="further ones would not keep the error"):
    sweep.main(until(tmp_path, max_seeds=40))
  assert sweep.main(until(tmp_path, until="", max_seeds=None)) == 0
  assert read_json(plan)["looks"] == looks
  (tmp_path / "looks.json").write_text("{")
  with pytest.raises(ConfigError, match="looks.json.*Copy `looks` of sweep.json"):
    sweep.main(until(tmp_path, max_seeds=8))


def test_one_run_has_seeds_of_the_schedule(tmp_path, trained):
  assert sweep.main(until(tmp_path, max_seeds=4)) == 0
  other = {"model.position": "rope(base=5)", "seeds": (7,)}
  with pytest.raises(ConfigError, match="no verdict would read seed 7; choose"):
    run.main(until(tmp_path, other, until="", max_seeds=None))


def test_a_score_that_no_run_has_is_one_sentence(tmp_path, trained, capsys):
  plan = dataclasses.replace(PLAN, comparisons=Comparisons(part="last_half"))
  assert sweep.main(until(tmp_path, plan=plan)) == 1
  noise = capsys.readouterr().err
  assert noise.count("\n") == 1 and "no run has a score of its comparisons" in noise


def test_a_folder_that_cannot_be_read_any_more_is_one_sentence(
  tmp_path, trained, capsys, monkeypatch
):
  def refuse(workdir):
    raise PermissionError(13, "Permission denied", str(workdir / "runs"))

  monkeypatch.setattr(comparisons, "find", refuse)
  assert sweep.main(until(tmp_path)) == 1
  noise = capsys.readouterr().err
  assert noise.count("\n") == 1 and "Permission denied" in noise
  assert noise.endswith("; the runs are kept\n")


def test_a_dry_run_says_the_schedule_and_writes_nothing(tmp_path, trained, capsys):
  assert sweep.main(until(tmp_path, dry_run=True, max_seeds=8)) == 0
  said = capsys.readouterr().out
  assert "until resolved: looks at 3, 4, 6 and 8 seeds" in said
  assert not trained.did and not [*tmp_path.iterdir()]


def test_what_it_cannot_do_is_one_sentence(tmp_path, trained):
  unequal = Chain(
    Group("text", POSITIONS), Group("copy", POSITIONS, {"task": "copy", "seeds": (5,)})
  )
  for problem, changes in {
    "all runs start with the same seeds": {"plan": Plan("why?", unequal, "none")},
    "the plan has 3 seeds; write a number from 3": {"max_seeds": 2},
    "seed 9 may be one of the report's, which has up to 20 seeds": {
      "plan": dataclasses.replace(
        PLAN, tune=Tune({"train.clip": (1.0, 2.0)}, seeds=(9,))
      )
    },
  }.items():
    with pytest.raises(ConfigError, match=problem) as caught:
      sweep.main(until(tmp_path, **changes))
    assert "\n" not in str(caught.value) and not [*tmp_path.iterdir()]
  with pytest.raises(ConfigError, match="a single run is compared with nothing"):
    run.main(until(tmp_path))
