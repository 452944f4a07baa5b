"""The command `explain`: its page from a run that was really trained; refusals."""

import json
import types

import numpy as np
import pytest
from absl import flags
from fake_runs import BASE
from trained_sweep import TINY

from experiments.explain import __main__ as explain
from experiments.explain import explaining, explanation_page
from experiments.reporting.statistics import Estimate
from experiments.runner import run_folder, train
from experiments.setup import runs
from experiments.setup.plan import Grid, Group, Plan
from experiments.setup.validate import ConfigError
from transformer_jax.data.base import tasks

CLASSIFY = {
  **{"model.kind": "encoder", "model.tied": False, "train.length": 8},
  "task": "classification('texts.tsv', 'word(size=16)', classes=3)",
}


@pytest.fixture(scope="module")
def classified(tmp_path_factory):
  """Returns the folder of a finished run of a classifier with two seeds."""
  here = tmp_path_factory.mktemp("classified")
  words = np.random.default_rng(0).choice(["good", "bad", "film", "dull"], (200, 4))
  lines = [
    f"{' '.join(w)} {n}\t{'yes' if 'good' in w else 'no'}\n"
    for n, w in enumerate(words)
  ]
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(here)
    (here / "texts.tsv").write_text("".join(lines))
    plan = Plan("Why?", Group("text", Grid({"model.position": ("none",)}), CLASSIFY))
    (todo,) = runs.expand(plan, BASE, TINY | {"evaluate.lengths": (1,)})

    def one(folder):
      return train.run(todo.config, folder, "tiny", stop=False)

    assert run_folder.perform(todo, here, one, {}).state == "finished"
    yield here / "runs" / todo.id


def run(**given):
  """Runs the command with flags of its own."""
  values = flags.FlagValues()
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(flags, "FLAGS", values)
    patch.setattr(explain, "FLAGS", values)
    for kind in ("string", "integer", "float", "list"):
      define = getattr(flags, f"DEFINE_{kind}")
      patch.setattr(flags, f"DEFINE_{kind}", _on(define, values))
    explain.define()
    values(["explain", *(f"--{name}={value}" for name, value in given.items())])
    explain.main(["explain"])


def _on(define, values):
  return lambda *args: define(*args, flag_values=values)


@pytest.mark.slow
def test_the_page_its_numbers_and_its_figure(classified, tmp_path, capsys):
  few = {"texts": 6, "permutations": 3, "steps": 20, "starts": 1}
  run(run=classified, output=tmp_path, **few)
  assert str(tmp_path / "explanation.md") in capsys.readouterr().out
  numbers = json.loads((tmp_path / "explanation.json").read_text())
  by_text = {name: np.array(x, float) for name, x in numbers["by_text"].items()}
  assert {x.shape for x in by_text.values()} == {(2, 6)}
  assert numbers["settings"]["search"]["steps"] == 20
  np.testing.assert_allclose(by_text["seeds"][0], by_text["seeds"][1])
  assert (by_text["adversarial_moved"] <= 0.01 + 1e-6).all()
  assert (by_text["adversarial"] > 0).any()
  gap = (
    numbers["measures"]["adversarial"]["mean"] - numbers["measures"]["seeds"]["mean"]
  )
  assert abs(numbers["adversarial_minus_seeds"]["mean"] - gap) < 1e-6
  two = [numbers["measures"]["seeds"], numbers["measures"]["seeds_moved"]]
  assert {x["low"] for x in (*two, numbers["adversarial_minus_seeds"])} == {None}
  page = (tmp_path / "explanation.md").read_text()
  for row in numbers["measures"]:
    assert explanation_page.ROWS[row][0] in page
  assert "| yes |" in page or "| no |" in page
  assert {x.name for x in tmp_path.iterdir()} == {
    "explanation.md", "explanation.json", "explanation.png", "explanation.svg",
    "explanation.pdf", "explanation.csv",
  }  # fmt: skip


REFUSED = {
  "a layer that is not there": ({"layer": 1}, "--layer=1: this model has 1 layer"),
  "an epsilon of nothing": ({"epsilon": 0}, "epsilon=0.0: write a number between"),
  "no steps": ({"steps": 0}, "steps=0: write 1 or more"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name, classified):
  given, sentence = REFUSED[name]
  with pytest.raises(ValueError, match=sentence) as caught:
    run(run=classified, **given)
  assert "\n" not in str(caught.value)


def test_an_average_of_checkpoints_that_are_not_there_is_one_sentence(
  commands, classified
):
  done = commands.run(
    "experiments.explain", f"--run={classified}", "--average=9", cwd=classified
  )
  assert done.returncode == 2, done.stdout + done.stderr
  assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
  assert "checkpoint" in done.stderr


REFUSED_TASKS = (
  "text('corpus')",
  "classification('texts.tsv', second='other', classes=3)",
)


@pytest.mark.parametrize("task", REFUSED_TASKS)
def test_another_task_is_refused(task):
  config = types.SimpleNamespace(task=task)
  other = types.SimpleNamespace(task=tasks.build(task), folder="runs/ID", config=config)
  with pytest.raises(
    ConfigError, match="explain reads runs of the task classification"
  ):
    explaining.study(other, explaining.ExplainSettings())


VERDICTS = {
  "farther": Estimate(0.2, 0.1, 0.3, 3),
  "nearer": Estimate(-0.2, -0.3, -0.1, 3),
  "Not resolved": Estimate(0.0, -0.1, 0.1, 3),
  "One seed": None,
}


@pytest.mark.parametrize("word", VERDICTS)
def test_the_verdict_is_that_of_the_interval(word):
  assert word in explanation_page.verdict(VERDICTS[word])


def test_two_seeds_are_one_pair_without_an_interval():
  same_SE = np.tile(np.random.default_rng(0).uniform(0.1, 0.3, 50), (2, 1))
  values = {"adversarial": same_SE + 0.2, "seeds": same_SE, "seeds_moved": same_SE}
  for row in ("seeds", "seeds_moved"):
    found = explanation_page._estimate(values, row)
    assert found.interval is None and found.mean == pytest.approx(same_SE.mean())
  gap = explanation_page._gap(types.SimpleNamespace(value_SE=values))
  assert gap.interval is None and gap.mean == pytest.approx(0.2)
  sentence = explanation_page.verdict(gap)
  assert sentence.startswith("Not resolved: +0.200 nats") and "three" in sentence


def test_intervals_between_seeds_are_those_of_a_jackknife():
  rng = np.random.default_rng(0)
  own_SE, pair_PE = rng.uniform(0.3, 0.6, (3, 1)), rng.uniform(0.1, 0.2, (3, 1))
  own_SE, pair_PE = np.tile(own_SE, (1, 9)), np.tile(pair_PE, (1, 9))  # 01, 02, 12
  apart_SE = np.stack([pair_PE[list(x)].mean(0) for x in ((0, 1), (0, 2), (1, 2))])
  values = {"adversarial": own_SE, "seeds": apart_SE}
  left_S = pair_PE[::-1, 0]  # the pair without seed 0, 1, 2
  error = np.sqrt(2 / 3 * np.sum((left_S - left_S.mean()) ** 2))
  found = explanation_page._estimate(values | {"seeds_moved": apart_SE}, "seeds_moved")
  assert found.high == pytest.approx(min(1, left_S.mean() + 4.302653 * error))
  gap_S = [np.delete(own_SE[:, 0], s).mean() - left_S[s] for s in range(3)]
  error = np.sqrt(2 / 3 * np.sum((gap_S - np.mean(gap_S)) ** 2))
  gap = explanation_page._gap(types.SimpleNamespace(value_SE=values))
  assert gap.half == pytest.approx(4.302653 * error)
