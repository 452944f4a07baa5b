"""Tuned plans: the same search for each variant, chosen on validation, then trained."""

import csv
import dataclasses
import json
import os
import re
import signal

import pytest
from fake_runs import BASE, POSITIONS, asked
from fake_sweep import read_page

from experiments import run, sweep
from experiments.runner.build import build
from experiments.setup import config_file, flags, runs, tuning
from experiments.setup.plan import Group, Plan
from experiments.setup.tuning import Trial, Tune, Tuned
from experiments.setup.validate import ConfigError, resolve
from transformer_jax.training.json_files import read_json

RATES = (1e-3, 3e-3, 1e-2)
BEST = {"none": 3e-3, "rope": 1e-2}
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
TUNE = Tune({"train.optimizer.lr": RATES}, seeds=(7, 8))


def rate_of(config):
  return float(re.search(r"lr=([\d.e-]+)", config.train.optimizer)[1])


@pytest.fixture
def tuned(tmp_path, train, monkeypatch):
  """A request whose fake runs score best at a rate of their own; train.configs."""
  train.configs = []

  def one(config, folder, name, stop):
    train.configs.append(config)
    if name in train.does:
      return train.does[name](stop)
    off = abs(rate_of(config) / BEST[config.model.position] - 1)
    scores = [
      {
        "seed": s,
        "length": 64,
        "measure": "accuracy",
        "part": "mean",
        "value": 0.9 - off / 10 + s / 1e3,
      }
      for s in config.seeds
    ]
    if rate_of(config) == 1e-3 and len(config.seeds) == 2:
      scores[0]["value"] = None  # diverged
    return {
      "seeds": [*config.seeds],
      "measures": [{"name": "accuracy", "better": "higher"}],
      "train_length": 64,
      "lengths": [64],
      "scores": scores,
      "seconds": {"train": 2.0, "compile": 1.0},
      "flops_per_token": 1e3,
      "tokens_per_step": 100,
    }

  train.run = one
  plan = Plan("why?", Group("text", POSITIONS), "none", tune=TUNE)
  return dataclasses.replace(asked(tmp_path), plan=plan)


def test_each_variant_is_trained_with_the_best_of_its_own_search(
  tuned, train, tmp_path, capsys
):
  assert sweep.main(tuned) == 0
  said = capsys.readouterr().out
  assert (
    "tuning: 6 runs first (2 variants x train.optimizer.lr of 0.001, 0.003, 0.01;"
    in (said.replace("\n", " "))
  )
  assert "6 runs in " in said and "2 runs in " in said
  found, final = train.configs[:6], train.configs[6:]
  # The same values, on validation, at the trained length, with seeds of its own.
  assert [rate_of(config) for config in found] == [*RATES, *RATES]
  assert {
    (c.evaluate.split, tuple(c.evaluate.lengths), tuple(c.seeds)) for c in found
  } == {("validation", (1,), (7, 8))}
  assert [rate_of(config) for config in final] == [3e-3, 1e-2]
  assert {(c.evaluate.split, tuple(c.seeds)) for c in final} == {("", (0, 1, 2))}
  none, rope = read_json(tmp_path / "sweep.json")["runs"]
  assert none["tuned"]["chosen"] == {"train.optimizer.lr": 3e-3}
  assert [t["scores"]["7"] for t in none["tuned"]["trials"]][0] is None
  assert {p.name for p in (tmp_path / "tuning" / "runs").iterdir()} == {
    trial["id"] for each in (none, rope) for trial in each["tuned"]["trials"]
  }
  assert {p.name for p in (tmp_path / "runs").iterdir()} == {none["id"], rope["id"]}
  # Again: nothing is trained, and the choice is the same.
  assert sweep.main(tuned) == 0 and len(train.configs) == 8
  assert read_json(tmp_path / "sweep.json")["runs"] == [none, rope]


def test_the_page_has_choices_curves_edges_and_cost(tuned, train, tmp_path):
  train.rendered.append("tuning_curves_")
  sweep.main(tuned)
  assert (tmp_path / "tuning_curves_text.png").read_bytes()[:4] == b"\x89PNG"
  page = read_page(tmp_path)
  header, none, rope = page.tables["tuning_text"]
  costs = ["at an edge", "runs", "s", "FLOPs"]
  assert header == ["variant", "train.optimizer.lr", "validation accuracy", *costs]
  # 400 steps of 100 tokens, 1,000 FLOPs each, three values and two seeds.
  assert none == ["none", "0.003", "0.907", "no", "3", "9", "2.4e+08"]
  assert rope[:5] == ["rope", "0.01", "0.907", "yes", "3"]
  text = (tmp_path / "report.html").read_text()
  assert "The best value of rope is the smallest or the largest that was" in text
  assert "Diverged or undefined: none (1 of its runs) and rope (1 of its runs)." in text
  budget = dict(page.tables["budget_text"])
  assert budget["tuned"].startswith(
    "train.optimizer.lr: each variant had the same 3 values, 2 seeds, chosen on the"
    " validation split;"
  )
  assert budget["tuned"].endswith("at an edge of what was tried: rope")
  lines = (tmp_path / "tuning_curves_text.csv").read_text().splitlines()
  assert lines[0] == "variant,train.optimizer.lr,seed,score,chosen,run"
  assert len(lines) == 1 + 2 * 3 * 2
  # A paper has the table too, and a line for each seed of the search.
  for name, line in (
    ("tables.md", "| none | 0.003 | 0.907 | no | 3 | 9 | 2.4e+08 |"),
    ("tables.tex", r"none & 0.003 & 0.907 & no & 3 & 9 & 2.4e+08 \\"),
  ):
    assert line in (tmp_path / name).read_text()
  trials = [*csv.DictReader((tmp_path / "tuning.csv").read_text().splitlines())]
  assert len(trials) == 2 * 3 * 2
  best = [x for x in trials if x["chosen"] == "True"]
  chosen = {(x["variant"], x["train.optimizer.lr"]) for x in best}
  assert chosen == {("none", "0.003"), ("rope", "0.01")}
  assert {(x["split"], x["measure"], x["seconds"]) for x in trials} == {
    ("validation", "accuracy", "3.0")
  }


def test_a_dry_run_says_the_cost_and_then_what_was_chosen(
  tuned, train, tmp_path, capsys
):
  dry = dataclasses.replace(tuned, dry_run=True)
  assert sweep.main(dry) == 0
  said = capsys.readouterr().out
  assert "tuning: 6 runs first" in said and "tuned:" not in said
  assert not train.configs and not [*tmp_path.iterdir()]
  sweep.main(tuned)
  capsys.readouterr()
  sweep.main(dry)
  said = capsys.readouterr().out
  assert "\n  tuned: train.optimizer.lr=0.003 (best of 3)\n" in said
  assert "=0.01 (best of 3; at the edge of the train.optimizer.lr tried)\n" in said


def test_a_search_that_stopped_or_failed_goes_on(
  tuned, train, tmp_path, capsys, request
):
  before = signal.signal(signal.SIGTERM, signal.default_int_handler)
  request.addfinalizer(lambda: signal.signal(signal.SIGTERM, before))
  name = "[2/6] text none lr=0.003"
  train.does[name] = lambda stop: os.kill(os.getpid(), signal.SIGTERM)
  assert sweep.main(tuned) == 143
  assert f"--workdir={tmp_path}\n" in capsys.readouterr().out.replace(" --", "\n--")
  train.does[name] = lambda stop: {}["out of luck"]
  assert sweep.main(tuned) == 1 and not (tmp_path / "sweep.json").exists()
  assert "nothing was trained for the report" in capsys.readouterr().out
  del train.does[name]
  assert sweep.main(tuned) == 0
  assert len(train.configs) == 2 + 5 + 1 + 2


def test_groups_that_were_tuned_before_stay_so(tuned, tmp_path):
  copying = Group("copy", POSITIONS, {"train.clip": 0.5})
  plan = dataclasses.replace(tuned.plan, runs=(*tuned.plan.runs, *copying))
  both = dataclasses.replace(tuned, plan=plan)
  for groups in (("text",), ("copy",)):
    assert sweep.main(dataclasses.replace(both, groups=groups)) == 0
  entries = read_json(tmp_path / "sweep.json")["runs"]
  assert len(entries) == 4 and all("tuned" in entry for entry in entries)


def test_flags_tune_what_the_plan_does_not(tuned, train):
  plan = dataclasses.replace(tuned.plan, tune=None)
  words = ("train.optimizer.lr=(3e-3, 1e-2)", "train.clip=(0.5, 1.0)")
  request = dataclasses.replace(tuned, plan=plan, searched=words)
  assert "'--tune=train.clip=(0.5, 1.0)'" in request.command("sweep")
  assert sweep.main(request) == 0
  assert len(train.configs) == 2 * 4 + 2
  assert [c.seeds for c in train.configs[:1]] == [tuning.SEEDS]
  with pytest.raises(ConfigError, match="a single run is not tuned"):
    run.main(request)


@pytest.mark.parametrize(
  ("values", "says"),
  [
    ({"train.optimiser.lr": (1,)}, "Did you mean 'train.optimizer'?"),
    ({"train.optimizer.rate": (1,)}, "rate"),
    ({"train.clip": ("1",)}, "write a number"),
    ({"seeds": ((0,),)}, "seed 7 is one"),
  ],
)
def test_a_search_that_cannot_be_is_refused_before_it_starts(
  tuned, tmp_path, values, says
):
  seeds = (0, 1, 7) if "seeds" in values else (0, 1)
  plan = dataclasses.replace(tuned.plan, tune=Tune(values, seeds=(7,)))
  request = dataclasses.replace(tuned, plan=plan, overrides={"seeds": seeds})
  with pytest.raises(ConfigError, match=says.replace("?", r"\?")):
    sweep.main(request)
  assert not [*tmp_path.iterdir()]


def test_a_search_without_any_score_says_so(tuned, train):
  plan = dataclasses.replace(
    tuned.plan, tune=Tune({"train.optimizer.lr": (1e-3,)}, (7, 8))
  )
  with pytest.raises(
    ConfigError, match="text none: no run of its search has a accuracy"
  ):
    sweep.main(dataclasses.replace(tuned, plan=plan))


@pytest.mark.parametrize(
  "word", ["train.clip", "train.clip=1", "train.clip=()", "x=(1"]
)
def test_a_flag_that_is_no_search_says_what_is(word):
  with pytest.raises(ConfigError, match=r"write a key and a tuple of values"):
    tuning.parsed((word,))
  with pytest.raises(ConfigError, match="write a tuple of values to try"):
    Tune({"train.clip": 1.0})


@pytest.mark.parametrize(
  ("spec", "wanted"),
  [
    ("adamw(lr=4e-3, b1=0.8)", "adamw(lr=0.5, b1=0.8)"),
    ("adamw", "adamw(lr=0.5)"),
    ("my.file:Own(a='x:Y', lr=1)", "my.file:Own(a='x:Y', lr=0.5)"),
    ("adamw(b1=0.8)", "adamw(b1=0.8, lr=0.5)"),
  ],
)
def test_an_argument_of_a_spec_is_set_by_its_name(spec, wanted):
  assert tuning.with_argument(spec, "lr", 0.5) == wanted
  with pytest.raises(ConfigError, match="is a sum"):
    tuning.with_argument(f"{spec} + b", "lr", 0.5)


def test_a_damaged_record_of_a_search_is_no_search():
  trial = Trial({"k": 1}, "a", {"0": 0.5}, 1.0, 0.0)
  whole = json.loads(json.dumps(Tuned("m", "lower", {"k": 1}, (trial,)).record()))
  assert Tuned.recorded(whole).best.mean == 0.5
  for wrong in (
    None, 3, {}, whole | {"chosen": {"k": 2}}, whole | {"chosen": {}},
    whole | {"trials": [trial.__dict__ | {"scores": {"0": "x"}}]},
  ):  # fmt: skip
    assert Tuned.recorded(wrong) is None


def test_validation_scores_other_examples_than_test():
  def scored(task, split):
    return build(resolve(BASE, {"task": task, "evaluate.split": split})).evaluator

  assert scored("text", "").task.split == "test"
  assert scored("text", "validation").task.split == "validation"
  assert scored("copy", "").key == scored("copy", "test").key
  assert scored("copy", "validation").key != scored("copy", "test").key
  kept = runs.run_id(BASE)
  assert kept == runs.run_id(resolve(BASE, {"evaluate.split": ""}))


def test_the_command_line_reads_a_search():
  argv = ["sweep", f"--config={config_file.DEFAULT}", "--tune=train.clip=(0.5, 1.0)"]
  values = flags.absl_flags.FlagValues()
  flags.define(argv, values)
  assert flags.parse(argv, values).tune == Tune({"train.clip": (0.5, 1.0)})
