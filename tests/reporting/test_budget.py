"""The page states each group's budget first: from the configs, with the differences."""

import json

import pytest
from fake_sweep import TEXT, edit, read_page, write_sweep

from experiments.reporting import budget, comparisons
from experiments.reporting.page import write_report

CONFIG = {
  "train.steps": 400,
  "train.batch_size": 16,
  "train.length": 64,
  "train.optimizer": "adamw(lr=8e-3)",
  "train.schedule": "cosine(warmup=30)",
  "seeds": [0, 1, 2],
  "evaluate.examples": 32,
}
TARGETS = {"64": {"fingerprint": "aa", "examples": 32, "targets": 2048}}


@pytest.fixture
def sweep(tmp_path):
  means = {label: TEXT[label] for label in ("none", "alibi", "rope")}
  workdir = write_sweep(tmp_path, {"text": ("bits_per_byte", means)})
  for n in range(3):
    run = f"text-{n:02d}"
    edit(workdir, run, "config.json", **CONFIG)
    data = {"fingerprint": "aa", "windows": 14032}
    edit(workdir, run, tokens_per_step=1024, targets=TARGETS, data=data)
  return workdir


def lines(workdir):
  return dict(budget.budget_table(comparisons.find(workdir), "text").rows)


def test_the_budget_is_that_of_the_recorded_configs(sweep):
  found = lines(sweep)
  assert found["training steps"] == "400"
  assert found["batch"] == "16 examples of length 64"
  assert found["tokens in training, each seed"] == "409,600"
  assert found["FLOPs in training, each seed"] == "3e+11"  # 409,600 times 731,904
  assert found["optimizer and learning rate"] == "adamw(lr=8e-3)"
  assert found["schedule"] == "cosine(warmup=30)"
  assert found["parameters"] == "115,712"
  assert found["seeds"] == "3 (0, 1, 2)"
  assert found["scored examples, each length"] == "32 of 14,032"
  assert found["tuned"].startswith("nothing; every variant has the same optimizer")
  assert found["matched"].startswith("nothing was solved for; equal to 1%: steps, tok")
  assert found["settings that differ"] == "model.position"


def test_variants_with_another_budget_are_named(sweep):
  changed = {"train.steps": 800, "seeds": [0, 1], "train.optimizer": "lion(lr=1e-4)"}
  edit(sweep, "text-02", "config.json", **changed, **{"model.layers": 3})
  edit(sweep, "text-01", parameters=231_424)
  found = lines(sweep)
  assert found["training steps"] == "400; 800 in rope"
  assert found["tokens in training, each seed"] == "409,600; 819,200 in rope"
  assert found["seeds"] == "3 (0, 1, 2); 2 (0, 1) in rope"
  assert found["parameters"] == "115,712 (none) to 231,424 (alibi)"
  assert found["optimizer and learning rate"] == "adamw(lr=8e-3); lion(lr=1e-4) in rope"
  assert found["tuned"] == "nothing; the plan sets the learning rates"
  assert "parameters (largest 2 times the smallest)" in found["matched"]
  assert "equal to 1%" not in found["matched"]
  assert found["settings that differ"] == "model.layers and model.position"


@pytest.mark.usefixtures("undrawn")
def test_what_was_not_recorded_has_no_line(tmp_path):
  workdir = write_sweep(tmp_path, {"text": ("bits_per_byte", {"rope": TEXT["rope"]})})
  found = lines(workdir)
  assert not {"schedule", "tokens in training, each seed", "matched"} & found.keys()
  (workdir / "runs/text-00/config.json").unlink()
  assert not lines(workdir)
  write_report(workdir)
  assert "budget_text" not in read_page(workdir).tables


@pytest.mark.usefixtures("undrawn")
def test_the_page_states_the_budget_before_the_results(sweep):
  page = read_page(write_report(sweep).parent)
  names = list(page.tables)
  assert names.index("budget_text") < names.index("main_text")


def test_what_was_solved_stands_in_the_budget(sweep):
  matched = {"quantity": "flops", "by": "train.steps", "baseline": "none", "key": "k"}
  matched |= {"overrides": {"train.steps": 390}, "want": 3e11, "got": 2.99e11}
  plan = json.loads((sweep / "sweep.json").read_text())
  plan["runs"][1]["matched"] = matched
  plan["runs"][2]["matched"] = matched | {"overrides": {}, "want": 0}  # damaged
  (sweep / "sweep.json").write_text(json.dumps(plan))
  assert lines(sweep)["matched"].startswith(
    "flops of none (3e+11), by train.steps: alibi train.steps=390 (-0.3%); equal to 1%:"
  )
