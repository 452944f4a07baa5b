"""Runs on a prepared corpus: streamed is resident, resumed is uninterrupted."""

import shutil

import numpy as np
import pytest
from test_inputs import SMALL, StopAt

from experiments.configs import base
from experiments.runner import run_folder, step_time, train, training_text
from experiments.setup.runs import Run, run_id
from experiments.setup.validate import ConfigError, resolve, validate
from transformer_jax.data import corpus_writer, documents
from transformer_jax.data.base import tasks
from transformer_jax.data.files import DataError
from transformer_jax.training.json_files import read_json


@pytest.fixture
def corpus(tmp_path):
  """A corpus of numbers, of bytes."""
  return prepared(tmp_path, "corpus", "")


def prepared(tmp_path, name, mark):
  file = tmp_path / f"{name}.txt"
  file.write_text("".join(f"{n}{mark} squared is {n * n}. " for n in range(400)))
  found, how = documents.read(str(file))
  corpus_writer.write(tmp_path / name, found, {"source": str(file), "split": how})
  return tmp_path / name


def configured(corpus, **keys):
  task = f"text('{corpus}', window=16, scored=8, order='epochs')"
  return resolve(base.get_config(), {**SMALL, "task": task} | keys)


def performed(workdir, config, looks=99):
  """Trains until the stop flag was looked at so often; returns outcome and folder."""
  train.load.cache_clear()  # as in another process
  one = Run(run_id(config), "one", "text", config, {})
  stop = StopAt(looks)
  work = lambda folder: train.run(config, folder, "one", stop)
  outcome = run_folder.perform(one, workdir, work, {"commit": "abc"})
  return outcome, run_folder.folder(workdir, one)


def scores(folder):
  return read_json(folder / "result.json")["scores"]


def test_streamed_is_resident_and_a_resumed_run_is_an_uninterrupted_one(
  corpus, tmp_path
):
  resident = configured(corpus, **{"train.text": "resident"})
  streamed = configured(corpus, **{"train.text": "streamed"})
  assert run_id(resident) == run_id(streamed)
  _, want = performed(tmp_path / "resident", resident)
  assert performed(tmp_path / "streamed", streamed, looks=1)[0].state == "interrupted"
  outcome, folder = performed(tmp_path / "streamed", streamed)
  assert outcome.state == "finished" and scores(folder) == scores(want)
  result, other = (read_json(x / "result.json") for x in (folder, want))
  assert (result["data"]["text"], other["data"]["text"]) == ("streamed", "resident")
  assert result["data"]["epochs"] == other["data"]["epochs"] > 0
  assert result["goodput"]["seconds"]["data"] > 0
  assert other["goodput"]["seconds"]["data"] == 0


def test_a_corpus_that_changed_while_its_run_was_stopped_is_refused(corpus, tmp_path):
  config = configured(corpus, **{"train.text": "streamed"})
  assert performed(tmp_path, config, looks=1)[0].state == "interrupted"
  aside = shutil.move(corpus, tmp_path / "aside")
  shutil.move(prepared(tmp_path, "other", "!"), corpus)
  outcome, folder = performed(tmp_path, config)
  assert outcome.state == "failed"
  assert "trained with other contents of the data (then " in outcome.note
  shutil.rmtree(corpus)
  shutil.move(aside, corpus)
  assert performed(tmp_path, config)[0].state == "finished"
  assert len(read_json(folder / "result.json")["data"]["fingerprint"]) == 32


def test_auto_streams_what_is_large(corpus, monkeypatch):
  task = tasks.build(f"text('{corpus}', window=16, scored=8)")
  arrays, _ = task.load()
  placed = training_text.placed(task, arrays, "auto")
  assert isinstance(placed[0]["train_N"], np.ndarray)
  assert placed[1] == {"text": "resident"}
  monkeypatch.setattr(training_text, "FITTING", 1000)
  assert training_text.placed(task, arrays, "auto")[1] == {"text": "streamed"}


def test_text_that_cannot_be_placed_is_refused_in_one_sentence(corpus, monkeypatch):
  task = tasks.build(f"text('{corpus}', window=16, scored=8)")
  arrays, _ = task.load()
  monkeypatch.setattr(training_text, "MOST", 1000)
  with pytest.raises(DataError, match="tokens are more than one array counts; write"):
    training_text.placed(task, arrays, "resident")
  with pytest.raises(DataError, match="the data of Copy are arrays on the devices"):
    training_text.placed(tasks.build("copy"), (), "streamed")
  with pytest.raises(ConfigError, match="Did you mean 'streamed'"):
    validate(configured(corpus, **{"train.text": "stream"}))


def test_rows_of_epochs_that_32_bits_do_not_count_are_refused(corpus):
  config = configured(corpus, **{"train.steps": 2**31, "train.steps_per_dispatch": 2})
  with pytest.raises(DataError, match="counts 2,147,483,647 rows at most"):
    train.describe(config, compiled=True)


def test_steps_of_a_streamed_text_are_timed(corpus):
  config = configured(corpus, **{"train.text": "streamed"})
  seconds = step_time.stepper(config)
  assert seconds() > 0 and seconds() > 0
