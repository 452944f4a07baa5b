"""Ids of runs: what changes one, and what an added key leaves."""

import copy

from fake_runs import BASE, ONE, POSITIONS, crash, perform

from experiments import inference
from experiments.reporting import load
from experiments.setup import runs
from experiments.setup.identity import NEUTRAL
from experiments.setup.plan import Plan
from experiments.setup.validate import flatten, resolve
from transformer_jax.training.json_files import write_json

OTHER = {"model.tied": False, "train.clip": 0.5, "task": "copy"}
SAME = {"seeds": (0, 1), "evaluate.lengths": (1, 16), "evaluate.examples": 512}
SAME |= {"evaluate.batch_size": 8, "evaluate.beam": 1}


def test_an_id_depends_on_what_training_reads():
  for key, value in SAME.items():
    assert runs.run_id(resolve(BASE, {key: value})) == runs.run_id(BASE), key
  same = resolve(BASE, {"train.checkpoint_every": 400, "train.clip": 1})
  assert runs.run_id(same) == runs.run_id(BASE)
  ids = {runs.run_id(resolve(BASE, {key: value})) for key, value in OTHER.items()}
  assert len(ids - {runs.run_id(BASE)}) == len(OTHER)


def test_a_key_that_is_added_leaves_finished_runs_finished(tmp_path, monkeypatch):
  assert perform(tmp_path).state == "finished"
  added = copy.deepcopy(BASE).unlock()
  added.train.new_key = 0.5
  monkeypatch.setitem(NEUTRAL, "train.new_key", 0.5)
  (same,) = runs.expand(Plan("why?", POSITIONS, "none"), added.lock(), {})[1:]
  assert same.id == ONE.id and "train.new_key" in flatten(same.config)
  again = perform(tmp_path, crash, each=same)
  assert again.state == "finished" and "before" in again.note
  other = resolve(added, {"train.new_key": 0.25})
  assert runs.run_id(other) != runs.run_id(BASE) == runs.run_id(added)


def test_runs_from_before_the_average_keep_their_ids():
  older = {key: x for key, x in flatten(BASE).items() if key != "train.ema"}
  assert runs.identity.run_id(older) == runs.run_id(BASE)
  assert runs.run_id(resolve(BASE, {"train.ema": 0.9})) != runs.run_id(BASE)


def test_an_older_run_is_read_with_the_keys_that_were_added(tmp_path, monkeypatch):
  outcome = perform(tmp_path)
  write_json(tmp_path / "sweep.json", {"runs": [{"id": ONE.id}]})
  monkeypatch.setitem(NEUTRAL, "train.new_key", 0.5)
  (loaded,) = load.read(tmp_path).runs
  assert outcome.state == "finished" and loaded.config["train.new_key"] == 0.5
  monkeypatch.setitem(NEUTRAL, "model.tied", False)  # today's default is another one
  config = {key: x for key, x in flatten(BASE).items() if key != "model.tied"}
  write_json(tmp_path / "config.json", config)
  monkeypatch.delitem(NEUTRAL, "train.new_key")
  assert not inference.of_run(tmp_path)[0].model.tied
