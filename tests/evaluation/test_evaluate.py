"""Finished runs that are scored again by experiments.evaluate, and their report."""

import csv
import io
import shutil
import types

import pytest

from experiments import load_sweep
from experiments.evaluate import __main__ as evaluate
from experiments.evaluate import scoring
from experiments.evaluate.scoring import Scoring
from experiments.reporting import by_seed, comparisons, html_page, load
from experiments.setup.validate import ConfigError
from transformer_jax.data.base import tasks
from transformer_jax.evaluation import splits
from transformer_jax.training.json_files import read_json

NOTHING = {"lengths": [], "split": "", "task": "", "examples": 0, "groups": []}
NOTHING |= {"dry_run": False, "allow": []}


@pytest.fixture(scope="module", name="workdir")
def scored(workdir, tmp_path_factory):
  """A copy of the sweep: scores are written into it."""
  here = tmp_path_factory.mktemp("scored") / "here"
  return shutil.copytree(workdir.parents[1], here) / "runs" / "quickstart"


@pytest.fixture
def here(workdir, monkeypatch):
  monkeypatch.chdir(workdir.parents[1])


@pytest.fixture
def again(workdir, here, monkeypatch):
  """Runs the command in this process; returns its exit code."""

  def call(folder=workdir, **settings):
    values = types.SimpleNamespace(**NOTHING | {"workdir": str(folder)} | settings)
    monkeypatch.setattr(evaluate, "FLAGS", values)
    monkeypatch.setattr(evaluate.command, "require", lambda *_, **__: None)
    # Figures take seconds: the tables and the page are looked at without.
    monkeypatch.setattr(evaluate.sweep_report, "report", lambda *_: True)
    return evaluate.main(["evaluate"])

  return call


def contents(folder):
  """Returns the files of a sweep's runs, but for evaluations and claims."""
  files = [path for path in folder.glob("runs/**/*") if path.is_file()]
  files = [path for path in files if not path.name.startswith(".claim.")]
  named = {str(path.relative_to(folder)): path.read_bytes() for path in files}
  left_out = "evaluations", ".claim."
  return {n: x for n, x in named.items() if not any(part in n for part in left_out)}


def test_other_lengths_and_splits_are_scored_beside_what_was_trained(
  workdir,
  again,
  capsys,
):
  run = load_sweep(workdir).trained("none", group="copy")
  (run.folder / "lock").touch()
  before = contents(workdir)
  assert again(groups=["copy"], lengths=["4", "1"], split="validation") == 0
  assert again(groups=["copy"], lengths=["1", "4"]) == 0
  assert "1 scored\n" in capsys.readouterr().out
  assert contents(workdir) == before
  same, other = (
    read_json(Scoring((1, 4), split).file(run.folder)) for split in ("", "validation")
  )
  # The lengths are those of the run, so that the numbers are its own, bit for bit.
  assert same["scores"] == run.scores and same["split"] == run.result["split"] == "test"
  assert other["split"] == "validation" and other["lengths"] == [4, 16]
  # Guesses among the symbols and the end token.
  task = run.experiment.task
  share = 1 / (task.symbols + 1)
  assert run.result["chance"]["accuracy"] == {"4": share, "16": share}
  assert run.result["chance"]["exact_match"] == {"4": share**5, "16": share**17}
  assert {x["name"]: x["bounds"] for x in same["measures"]} == {
    "accuracy": [0, 1],
    "exact_match": [0, 1],
  }
  prints = [x["targets"]["4"]["fingerprint"] for x in (same, other)]
  assert (
    prints[0] != prints[1] and prints[0] == run.result["targets"]["4"]["fingerprint"]
  )
  assert again(groups=["copy"], lengths=["1", "4"]) == 0
  assert "1 scored before\n" in capsys.readouterr().out
  findings = comparisons.find(workdir)
  rows = csv.DictReader(io.StringIO(by_seed.to_csv(findings.sweep)))
  rows = [*rows]
  groups = {row["group"] for row in rows}
  # The plan declared no comparison of what was scored again.
  judged = {row["group"] for row in rows if row["primary"] == "True"}
  assert judged == {"text", "copy"}
  again_scored = [c for c in findings.comparisons if " scored on " in c.group]
  assert {c.verdict for c in again_scored} <= {"baseline", "exploratory", "undefined"}
  times = "1 and 4 times the length"
  assert groups >= {
    *("text", "copy", f"copy scored on {times}"),
    f"copy scored on the validation split, {times}",
  }
  page = html_page.page(findings, {group: [] for group in findings.sweep.groups})
  assert f"copy scored on the validation split, {times}" in page
  assert "2 of 2 runs finished" in page


def test_another_task_is_scored_or_refused_before_anything_is_read(
  workdir,
  again,
):
  assert again(groups=["copy"], task="reverse(symbols=4)", examples=6) == 0
  (run,) = load.read(workdir).of("copy scored on reverse(symbols=4), 6 examples")
  assert run.config["task"] == "reverse(symbols=4)" and run.fact("split") == "test"
  assert {x["examples"] for x in run.fact("targets").values()} == {6}
  singles = run.examples.value_SE[4, "accuracy", "mean"]
  assert run.examples.seeds == (0, 1) and singles.shape == (2, 6)
  assert load_sweep(workdir).trained("none", group="copy").scores != run.fact("scores")
  with pytest.raises(ConfigError, match="copy none: this task's vocabulary is 6 and"):
    again(groups=["copy"], task="reverse(symbols=2)")
  with pytest.raises(ConfigError, match="text rope: .* or --groups that do"):
    again(task="reverse(symbols=4)")


SERIES = "time_series('days.csv', season=7{})"
OTHER_TARGETS = {
  "gaussian": (", objective='gaussian'", "objective is gaussian and the run was"),
  "a quantile": (", objective='quantiles((0.5,))'", r"objective is quantiles\(\(0.5,"),
  "values": (", relative=False", "target_kind is values and .* 7 places before"),
  "another season": (", season=3", "target_kind is differences from .* 3 places"),
  "a horizon": (", horizon=2", "target_numbers is 2 and the run was trained with 1"),
}


@pytest.mark.parametrize("name", OTHER_TARGETS)
def test_a_series_is_not_scored_as_something_else(name):
  option, says = OTHER_TARGETS[name]
  other = SERIES.replace(", season=7", "") if "season" in option else SERIES
  with pytest.raises(ValueError, match=says):
    scoring._check_task(
      tasks.build(SERIES.format("")), tasks.build(other.format(option))
    )
  scoring._check_task(*(tasks.build(SERIES.format(x)) for x in ("", ", split='test'")))


@pytest.mark.parametrize(
  ("settings", "says"),
  [
    ({}, "nothing to score: write --split=validation"),
    ({"lengths": ["1", "x"]}, "--lengths=1,x: write multiples"),
    ({"split": "valid"}, "split 'valid'.* Did you mean 'validation'"),
    ({"groups": ["cpoy"], "examples": 3}, "there is no 'cpoy'.* Did you mean 'copy'"),
    ({"task": "copi"}, "Did you mean 'copy'"),
  ],
)
def test_wrong_settings_are_one_sentence(again, settings, says):
  with pytest.raises(ConfigError, match=says):
    again(**settings)


def test_a_dry_run_says_what_would_be_scored_and_writes_nothing(
  workdir,
  again,
  capsys,
):
  settings = {"groups": ["text"], "split": "validation", "lengths": ["2"]}
  assert again(dry_run=True, **settings) == 0
  said = capsys.readouterr().out
  assert said.startswith("text rope: 4 examples of text('corpus', window=64, scored=8)")
  assert "split validation, at the lengths 32, into " in said
  rope = load_sweep(workdir).trained("rope").folder
  assert not Scoring((2,), "validation").file(rope).exists()


def test_what_is_missing_or_damaged_is_said(workdir, again, tmp_path, capsys):
  moved = shutil.copytree(workdir, tmp_path / "moved")
  copy = load_sweep(moved).trained("none", group="copy").folder
  shutil.rmtree(copy / "checkpoints")
  assert again(moved, groups=["copy"], examples=2) == 1
  said = capsys.readouterr().out
  assert f"copy none: not scored: {copy} has no checkpoint: copy its folder" in said
  Scoring(examples=2).file(copy).parent.mkdir(parents=True, exist_ok=True)
  Scoring(examples=2).file(copy).write_text("{")
  groups = load.read(moved).groups
  assert "copy scored on 2 examples" not in groups and groups[0] == "text"
  assert "is damaged" in (said := capsys.readouterr().err)
  assert "left out; experiments.evaluate writes it again" in said


def test_the_split_of_a_task_with_data_is_its_own(workdir, here):
  run = load_sweep(workdir).trained("rope")
  evaluator = run.experiment.evaluator
  other = splits.with_split(evaluator, "validation")
  assert other.task.split == "validation" and other.key == evaluator.key
  assert splits.split_of(evaluator) == "test" == run.result["split"]
  assert splits.with_split(evaluator, "test") is evaluator


@pytest.fixture
def ask(commands, workdir):
  """Runs the command in a process of its own."""

  def call(*words):
    return commands.run("experiments.evaluate", *words, cwd=workdir.parents[1])

  return call


@pytest.mark.slow
def test_the_command_ends_with_a_report(ask):
  done = ask("--workdir=runs/quickstart", "--groups=copy", "--examples=3")
  assert done.returncode == 0, done.stdout + done.stderr
  assert done.stdout.endswith("\nreport: runs/quickstart/report.html\n")


def test_the_command_ends_with_one_line(ask):
  done = ask("--workdir=runs/quickstart", "--groups=copy", "--examples=3", "--dry_run")
  assert done.returncode == 0, done.stdout + done.stderr
  assert done.stdout.startswith("copy none: 3 examples of copy(symbols=4), split test")
  done = ask("--examples=3")
  assert done.returncode == 2 and done.stderr.count("\n") == 1
  assert "--workdir is missing; write --workdir=runs/quickstart" in done.stderr
  done = ask("--workdir=runs/nothing", "--examples=3")
  assert done.returncode == 2 and "no sweep.json in runs/nothing" in done.stderr
  done = ask("--workdir=runs/quickstart", "--lenghts=3")
  assert done.returncode == 2 and "--lengths" in done.stderr
