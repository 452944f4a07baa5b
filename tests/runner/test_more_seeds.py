"""More seeds and other scores of a finished run: what is there is not trained again."""

import dataclasses
import functools
import shutil

import jax
import numpy as np
import pytest
from fake_runs import BASE, FACTS, expand, perform
from test_checkpoint import flip_a_bit

from experiments import load_run
from experiments.runner import history, run_folder, seed_blocks, train
from experiments.runner.inputs import ChangedError
from experiments.runner.run_folder import Outcome
from experiments.setup import identity, runs
from experiments.setup.plan import Grid, Plan
from experiments.setup.validate import ConfigError, flatten, resolve
from transformer_jax.training import dispatch, metrics_log
from transformer_jax.training.json_files import read_json, write_json

TINY = {
  **{"model.width": 16, "model.heads": 2, "model.layers": 1, "model.feedforward": 16},
  **{"train.steps": 4, "train.steps_per_dispatch": 2, "train.batch_size": 4},
  **{"train.checkpoint_every": 4, "train.length": 4, "task": "copy(symbols=4)"},
  **{"train.schedule": "constant"},
  **{"evaluate.examples": 4, "evaluate.batch_size": 4, "evaluate.lengths": (1, 2)},
}
APART = FACTS | {"seeds_apart": True}


def run_of(**keys):
  """Returns a run of other seeds or another evaluation."""
  named = {key.replace("__", "."): value for key, value in keys.items()}
  (run,) = expand(Grid({"model.position": ("none",)}), TINY | named)
  return run


def do(workdir, run, facts=APART, stop=False):
  """Trains and scores as a sweep does; returns the outcome."""

  def one(folder):
    config = resolve(run.config, {"seeds": seed_blocks.of_config(folder)})
    return train.run(config, folder, "a run", stop=stop)

  return run_folder.perform(run, workdir, one, facts)


@functools.cache  # pytest knows a fixture that two files import as two
def finished(parent):
  workdir = parent / "few_seeds"
  assert do(workdir, run_of(seeds=(0, 1))) == Outcome("finished")
  return workdir


@pytest.fixture(scope="session")
def few(tmp_path_factory):
  """A finished run of two seeds."""
  return finished(tmp_path_factory.getbasetemp())


@pytest.fixture
def copied(few, tmp_path):
  return shutil.copytree(few, tmp_path / "copied")


def result_of(workdir, run):
  return read_json(run_folder.folder(workdir, run) / "result.json")


def scores(workdir, run, *seeds):
  return [s for s in result_of(workdir, run)["scores"] if s["seed"] in seeds]


def metrics(folder):
  """Returns the rows of a log without times, by seed and step."""
  rows = metrics_log.read(folder / "metrics.jsonl")
  rows = [{k: x for k, x in row.items() if k != "tokens_per_s"} for row in rows]
  return sorted(rows, key=lambda row: (row["seed"], row["step"]))


def test_new_seeds_are_trained_alone_and_have_the_numbers_of_a_run_of_all(
  copied, tmp_path, monkeypatch
):
  many, folder = run_of(seeds=(0, 1, 2, 5)), run_folder.folder(copied, run_of())
  assert many.id == folder.name
  before = scores(copied, many, 0, 1)
  weights = read_json(folder / "checkpoints" / "4" / "meta" / "metadata")
  trained, compile_steps = [], dispatch.compile_steps

  def compiled(trainer, seeds, *rest):
    trained.append(seeds)
    return compile_steps(trainer, seeds, *rest)

  monkeypatch.setattr(dispatch, "compile_steps", compiled)
  assert do(copied, many) == Outcome("finished")
  assert trained == [(2, 5)]
  assert read_json(folder / "checkpoints" / "4" / "meta" / "metadata") == weights
  assert scores(copied, many, 0, 1) == before
  whole = tmp_path / "whole"
  assert do(whole, many) == Outcome("finished")
  for name in ("seeds", "scores", "diverged", "targets"):
    assert result_of(copied, many)[name] == result_of(whole, many)[name]
  assert metrics(folder) == metrics(run_folder.folder(whole, many))
  one, other = load_run(folder), load_run(run_folder.folder(whole, many))
  assert one.seeds == other.seeds == (0, 1, 2, 5)
  assert jax.tree.all(jax.tree.map(np.array_equal, one.stacked, other.stacked))
  # Fewer seeds are there already, and stay.
  again = do(copied, run_of(seeds=(5, 0)))
  assert again.state == "finished" and "before" in again.note
  assert result_of(copied, many)["seeds"] == [0, 1, 2, 5]


def test_seeds_whose_training_was_stopped_go_on(copied):
  many = run_of(seeds=(0, 1, 2))
  assert do(copied, many, stop=True) == Outcome("interrupted")
  folder = run_folder.folder(copied, many)
  assert read_json(folder / "config.json")["seeds"] == [0, 1, 2]
  assert do(copied, many) == Outcome("finished")
  assert {score["seed"] for score in result_of(copied, many)["scores"]} == {0, 1, 2}


def test_other_lengths_and_examples_are_scored_without_training(copied, monkeypatch):
  run = run_of(seeds=(0, 1), evaluate__lengths=(1, 2, 4), evaluate__examples=8)
  old = result_of(copied, run)
  monkeypatch.setattr(dispatch, "compile_steps", None)  # nothing trains
  assert do(copied, run) == Outcome("finished")
  new = result_of(copied, run)
  assert new["lengths"] == [4, 8, 16] and new["targets"]["4"]["examples"] == 8
  assert all(new[key] == old[key] for key in ("peak_bytes", "tokens_per_s", "seeds"))
  assert new["seconds"]["train"] >= old["seconds"]["train"]
  assert "before" in do(copied, run).note


def test_what_cannot_be_added_is_one_sentence_and_touches_nothing(copied):
  folder = run_folder.folder(copied, run_of())
  old = read_json(folder / "result.json")
  run = run_of(seeds=(0, 1, 2), evaluate__examples=8)
  done = do(copied, run, facts=FACTS | {"seeds_apart": None})
  assert done.note.startswith(
    f"failed: {folder} is finished without seeds 2, evaluate."
  )
  assert "its seeds were trained together" in done.note or old.get("seeds_apart")
  shutil.rmtree(folder / "checkpoints")
  done = do(copied, run_of(seeds=(0, 1), evaluate__examples=8))
  assert done.state == "failed" and done.note.count("\n") == 0
  assert "without evaluate.examples=8, and has no checkpoint: copy its" in done.note
  assert read_json(folder / "result.json") == old
  assert read_json(folder / "status.json")["state"] == "finished"


def test_a_run_whose_inputs_changed_stays_finished(copied):
  run = run_of(seeds=(0, 1), evaluate__examples=8)
  folder = run_folder.folder(copied, run)
  names = ("config.json", "status.json", "result.json")
  before = [(folder / name).read_bytes() for name in names]

  def changed(folder):
    raise ChangedError("other data")

  done = run_folder.perform(run, copied, changed, APART)
  assert done == Outcome("failed", "failed: other data")
  assert [(folder / name).read_bytes() for name in names] == before


def test_a_damaged_block_is_trained_again(copied, capsys):
  many, folder = run_of(seeds=(0, 1, 2)), run_folder.folder(copied, run_of())
  assert do(copied, many) == Outcome("finished")
  want = scores(copied, many, 0, 1, 2)
  newest = folder / "more_seeds" / "1_2" / "checkpoints" / "4"
  for file in newest.rglob("d/*"):  # the largest may be one that no reader needs
    flip_a_bit(file)
  for name in ("result.json", "config.json"):
    (folder / name).write_text("{")
  assert do(copied, many) == Outcome("finished")
  assert "checkpoint" in (said := capsys.readouterr().err) and "is damaged" in said
  assert scores(copied, many, 0, 1, 2) == want


def test_blocks_are_named_by_their_seeds(tmp_path):
  write_json(tmp_path / "config.json", {"seeds": [4, 2]})
  assert seed_blocks.extend(tmp_path, (0, 1)) == (0, 1)  # nothing is trained yet
  (tmp_path / "checkpoints" / "8").mkdir(parents=True)
  assert seed_blocks.extend(tmp_path, (2, 7, 8)) == (4, 2, 7, 8)
  assert [x.name for x in (tmp_path / "more_seeds").iterdir()] == ["1_7-8"]
  write_json(tmp_path / "config.json", {"seeds": [4, 2, 7, 8]})
  assert seed_blocks.extend(tmp_path, (9,)) == (4, 2, 9)  # 7 and 8 never began
  many = [10**9 + 2 * n for n in range(20)]
  write_json(tmp_path / "config.json", {"seeds": [4, 2, 9]})
  (tmp_path / "more_seeds" / "1_9" / "checkpoints" / "8").mkdir(parents=True)
  every = seed_blocks.extend(tmp_path, many)
  assert every == (4, 2, 9, *many)
  found = seed_blocks.blocks(tmp_path, every)
  assert [block.seeds for block in found[:2]] == [(4, 2), (9,)]
  assert tuple(seed for block in found for seed in block.seeds) == every
  assert len(found) > 3 and all(len(x.folder.name) < 110 for x in found)


# And a key that they did not have.
OLDER = ("train.checkpoint_every", "train.keep_checkpoints", "train.text")
OLDER += ("evaluate.batch_size", "evaluate.texts_per_step")


def older_id(run, monkeypatch):
  """Returns the id that a run had when seeds and evaluation were part of it."""
  with monkeypatch.context() as patch:
    patch.setattr(identity, "FREE", OLDER)
    patch.setattr(identity, "SCORED", "no key")
    return runs.run_id(run.config)


def test_ids_of_older_versions_are_known(monkeypatch):
  (rope,) = expand(Grid({"model.position": ("rope",)}))
  # Recorded when seeds and evaluation were part of it.
  assert older_id(rope, monkeypatch) == "3fc84cfce9" != rope.id


def test_a_folder_named_by_an_older_version_is_found(tmp_path, monkeypatch):
  (run,) = expand(Grid({"model.position": ("rope",)}))
  old = older_id(run, monkeypatch)
  assert old != run.id
  assert perform(tmp_path, each=dataclasses.replace(run, id=old)).state == "finished"
  (found,) = history.in_folders(tmp_path, [run])
  assert found.id == old and found.label == run.label
  assert history.finished(tmp_path / "runs" / old, {}, run.config)
  other = tmp_path / "runs" / "0123456789"
  config = flatten(run.config) | {"evaluate.examples": 8}
  other.mkdir()
  write_json(other / "config.json", config)  # a folder that is not finished
  assert history.in_folders(tmp_path, [run])[0].id == old
  (tmp_path / "runs" / run.id).mkdir()
  assert history.in_folders(tmp_path, [run])[0].id == run.id


def test_two_runs_of_a_plan_that_are_one_training_are_refused():
  plan = Plan("why?", Grid({"evaluate.examples": (16, 32)}), "baseline")
  with pytest.raises(ConfigError, match="'examples=16' and 'examples=32' of the plan"):
    runs.expand(plan, BASE, {})
