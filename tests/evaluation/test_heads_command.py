"""The command that describes heads: files, one sentence for bad input, Python."""

import csv
import json
import re

import numpy as np
import pytest
from absl import flags

from experiments import load_run, load_sweep
from experiments.heads import __main__ as heads
from experiments.heads.head_runs import core_note
from experiments.heads.head_selection import select
from experiments.setup.validate import ConfigError
from transformer_jax.command import guarded

PATH = "decoder/layer_0/attention"


def command(capsys, *words):
  """Runs the command; returns its exit code, output and errors."""
  if "shown" not in flags.FLAGS:
    heads.define()
  saved = flags.FLAGS.flag_values_dict()
  try:
    flags.FLAGS(["heads", *words])
    guarded(lambda: heads.main(["heads"]), (ConfigError, ValueError))
    code = 0
  except SystemExit as ended:
    code = ended.code
  finally:
    for name, value in saved.items():
      setattr(flags.FLAGS, name, value)
  return code, *capsys.readouterr()


@pytest.fixture
def here(workdir, monkeypatch):
  monkeypatch.chdir(workdir.parents[1])
  return workdir


def test_a_page_and_its_numbers(here, tmp_path, capsys):
  few = "--examples=4", "--batch_size=2", "--statistics=previous(threshold=0.1),rare"
  code, out, err = command(
    capsys, f"--run={here}", "--groups=text", f"--out={tmp_path}", *few
  )
  assert (code, err) == (0, "")
  assert "Previous-token heads of 2 (previous(threshold=0.1) > 0.1): rope" in out
  assert "never holds weights" not in out  # these runs are so small that auto is dense
  page = (tmp_path / "heads.html").read_text()
  assert "<script" not in page and "http-equiv" in page and "Texts of each head" in page
  assert not re.search(r'(?:src|href)="http', page)
  content = json.loads((tmp_path / "heads.json").read_text())
  [run] = content["runs"]
  assert run["heads"] == {PATH: [0, 1]} and len(run["pruning"]["importance"][0]) == 3
  names = {x["statistic"] for x in content["heads"]}
  assert names == {"previous(threshold=0.1)", "rare", "ablation", "gradient"}
  rows = list(csv.DictReader((tmp_path / "heads.csv").read_text().splitlines()))
  assert len(rows) == len(content["heads"]) == 4 * 2 * 2  # statistics, heads, seeds
  assert "Heads by role" in (tmp_path / "heads.md").read_text()
  trained = load_sweep(here).trained("rope")
  found = trained.head_statistics(["previous"], seed=1, examples=4)["previous"][PATH]
  [ours] = [
    float(x["mean"])
    for x in rows
    if x["statistic"].startswith("previous") and x["head"] == "1" and x["seed"] == "1"
  ]
  np.testing.assert_allclose(ours, found[:, 1].mean(), rtol=1e-5)


@pytest.mark.parametrize(
  ("words", "sentence"),
  [
    (
      ["--head=7:0"],
      "--head=7:0: there is no layer '7'. This model has decoder/layer_0",
    ),
    (["--head=0:9"], "attention has no head '9'; it has 0 to 1"),
    (["--statistics=previos"], "unknown head statistic 'previos'. Did you mean"),
    (["--groups=txt"], "--groups: there is no 'txt'. Did you mean 'text'?"),
  ],
)
def test_bad_input_is_one_sentence(here, tmp_path, capsys, words, sentence):
  out = f"--out={tmp_path / 'new'}"
  code, _, err = command(capsys, f"--run={here}", out, "--examples=2", *words)
  assert code == 2 and sentence in err and err.count("\n") == 1
  assert not (tmp_path / "new").exists()


def test_a_text_longer_than_the_positions_is_refused(here):
  run = load_run(next((here / "runs").iterdir()))
  evaluator = run.experiment.evaluator
  object.__setattr__(evaluator, "undefined", lambda length: "learned has 8 positions")
  with pytest.raises(ConfigError, match="length=99: learned has 8 positions; write"):
    run.head_analysis(length=99)


def test_a_core_that_never_holds_weights_is_named_with_the_cost_of_another():
  note = core_note("auto: blockwise", B=32, H=4, L=128)
  assert note.startswith("The core auto: blockwise never holds weights.")
  assert "L x M floats for each head: 8.0 MiB for a layer of 4 heads" in note


def test_heads_are_named_by_numbers_and_paths():
  layers = {"encoder/layer_0/attention": 2, "decoder/layer_0/cross": 4}
  assert select(layers, ["0:1"]) == {
    "encoder/layer_0/attention": (1,),
    "decoder/layer_0/cross": (1,),
  }
  assert select(layers, ["decoder/layer_0/cross:3", "decoder/layer_0/cross:0"]) == {
    "decoder/layer_0/cross": (0, 3)
  }
