"""Text: files in, windows out; the same bytes are scored at every length."""

import functools
import json
import os
import time

import jax
import numpy as np
import pytest

from transformer_jax.data import files
from transformer_jax.data.base import tasks
from transformer_jax.data.files import DataError
from transformer_jax.data.tasks.language.text import Text
from transformer_jax.numpy_interpreter import evaluate

KEY = jax.random.key(0)


@pytest.fixture
def folder(tmp_path):
  """60 files of 300 to 890 bytes; no two bytes pairs in a row are alike."""
  rng = np.random.default_rng(0)
  for n in range(60):
    path = tmp_path / "corpus" / f"part{n % 3}" / f"{n}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(rng.integers(32, 127, 300 + 10 * n, dtype=np.uint8)))
  return tmp_path / "corpus"


def loaded(source, **fields):
  task = Text(source=str(source), **fields)
  return task, *task.load()


def test_the_standard_library_loads_fast_and_says_what_it_is():
  started = time.process_time()
  arrays, facts = tasks.build("text").load()
  assert (
    time.process_time() - started < 5
  )  # of CPU; 1.2 s here, 0.8 of them for windows in training
  assert facts["source"] == "stdlib" and facts["split"] == "by file"
  assert facts["files"]["train"] > 300 and facts["bytes"]["train"] > 5e6
  assert facts["windows"] == len(arrays["end_W"]) > 1000
  assert arrays["train_N"].dtype == np.uint8
  assert facts["bytes"]["train"] == arrays["train_N"].size
  assert facts["python"] and len(facts["fingerprint"]) == 64
  json.dumps(facts)
  names = [document.name for document in files.read("stdlib")]
  assert "argparse.py" in names
  assert not [name for name in names if {"test", "tests"} & set(name.split("/"))]


def test_files_are_split_by_document(folder):
  splits, how = files.split(files.read(str(folder)))
  assert how == "by file"
  names = [{document.name for document in splits[name]} for name in files.SPLITS]
  assert sum(map(len, names)) == len(set.union(*names)) == 60
  assert len(names[0]) > 40 and len(names[1]) >= 1 and len(names[2]) >= 1
  assert "part0/0.txt" in set.union(*names)


def test_one_more_file_moves_no_other(folder):
  before, _ = files.split(files.read(str(folder)))
  (folder / "new.txt").write_text("new")
  after, _ = files.split(files.read(str(folder)))
  for name in files.SPLITS:
    assert {x.name for x in before[name]} == {x.name for x in after[name]} - {"new.txt"}


def test_a_folder_and_its_glob_are_the_same_text(folder):
  by_folder, by_glob = files.read(str(folder)), files.read(f"{folder}/**/*.txt")
  assert by_folder == by_glob
  assert files.fingerprint(by_folder) == files.fingerprint(by_glob)
  path = folder / "part0" / "0.txt"
  path.write_bytes(path.read_bytes()[::-1])  # as long as before
  assert files.fingerprint(by_folder) != files.fingerprint(files.read(str(folder)))


def test_hidden_files_are_left_out(folder):
  (folder / ".git").mkdir()
  (folder / ".git" / "index").write_bytes(b"\xff")
  assert len(files.read(str(folder))) == 60


def test_one_file_is_cut_between_characters(tmp_path):
  text = "größe €uro 𝄞 " * 200
  (tmp_path / "one.txt").write_text(text, encoding="utf-8")
  splits, how = files.split(files.read(str(tmp_path / "one.txt")))
  assert how == "within each file"
  pieces = [splits[name][0].content.decode("utf-8") for name in files.SPLITS]
  assert "".join(pieces) == text
  assert [round(len(piece) / len(text), 2) for piece in pieces] == [0.9, 0.05, 0.05]


def test_cuts_tear_no_character():
  for size in range(20, 60):
    document = files.Document("x", ("€" * size).encode())
    splits, _ = files.split([document])
    for name in files.SPLITS:
      text = splits[name][0].content.decode("utf-8")  # raises on half a character
      assert text == "€" * len(text)


def test_training_windows_are_the_text(folder):
  task, arrays, _ = loaded(folder, window=128)
  batch = evaluate(lambda key: task.batch(arrays, key, 8, 16), KEY)
  text = arrays["train_N"].tobytes()
  for row in range(8):
    window = [*np.asarray(batch.input_BL)[row], np.asarray(batch.target_BL)[row, -1]]
    assert bytes(window) in text
  np.testing.assert_array_equal(batch.input_BL[:, 1:], batch.target_BL[:, :-1])
  assert (np.asarray(batch.weight_BL) == 1).all()
  assert batch.at.order_BL.shape == (1, 16) and task.tokens(16) == 16


@pytest.mark.parametrize("split", ["test", "validation"])
def test_every_length_is_scored_on_the_same_bytes(folder, split):
  task, arrays, _ = loaded(folder, window=256, scored=32, split=split)
  program = jax.jit(
    lambda arrays, length: task.score(arrays, KEY, 4, length, bucket=256)
  )
  splits, _ = files.split(files.read(str(folder)))
  documents = [document.content for document in splits[split]]
  longest = program(arrays, 256)
  for length in (32, 50, 256):
    batch = program(arrays, length)
    np.testing.assert_array_equal(
      np.asarray(batch.weight_BL), np.tile(np.arange(256) >= 224, (4, 1))
    )
    np.testing.assert_array_equal(batch.target_BL[:, 224:], longest.target_BL[:, 224:])
    real = np.arange(256) >= 256 - length
    np.testing.assert_array_equal(batch.at.real_BL, real[None])
    np.testing.assert_array_equal(
      batch.input_BL, np.where(real, np.asarray(longest.input_BL), 0)
    )
    if length == 50:
      exact = jax.jit(lambda arrays: task.score(arrays, KEY, 4, 50, 50))(arrays)
      np.testing.assert_array_equal(exact.input_BL, batch.input_BL[:, -50:])
      np.testing.assert_array_equal(exact.target_BL, batch.target_BL[:, -50:])
  assert program._cache_size() == 1
  for row in range(4):  # inside one document
    window = bytes(np.asarray(longest.input_BL)[row].astype(np.uint8))
    window += bytes([int(longest.target_BL[row, -1])])
    assert any(window in document for document in documents)


def test_scored_bytes_do_not_overlap(folder):
  task, arrays, facts = loaded(folder, window=256, scored=32)
  ends = np.sort(arrays["end_W"])
  assert facts["windows"] == len(ends) and (np.diff(ends) >= 32).all()
  program = jax.jit(
    lambda rows: task.score(arrays, KEY, rows, 32, 32), static_argnums=0
  )
  batch = program(len(ends))
  rows = {bytes(row.astype(np.uint8)) for row in np.asarray(batch.target_BL)}
  assert len(rows) == len(ends)
  more = program(len(ends) + 3)
  # Each window once: more rows than windows score no window twice.
  np.testing.assert_array_equal(more.target_BL, batch.target_BL)


def test_a_window_may_end_with_its_document(tmp_path):
  for n in range(40):
    (tmp_path / f"{n}.txt").write_bytes(bytes([65 + n]) * (16 + 1 + 8))
  _, arrays, facts = loaded(tmp_path, window=16, scored=8)
  # Of 25 bytes in a document the 17th and the last end a window.
  assert facts["windows"] == 2 * facts["files"]["test"] > 0
  assert arrays["end_W"].max() == arrays["scored_N"].size


def test_shorter_than_scored_counts_what_there_is(folder):
  task, arrays, _ = loaded(folder, window=256, scored=32)
  batch = evaluate(lambda key: task.score(arrays, key, 4, 16, 64), KEY)
  np.testing.assert_array_equal(np.asarray(batch.weight_BL).sum(axis=1), 16)


def test_limit_keeps_the_first_bytes(folder):
  _, everything, _ = loaded(folder, window=64)
  _, arrays, facts = loaded(folder, window=64, limit=1000)
  assert facts["bytes"] == {"train": 1000, "validation": 1000, "test": 1000}
  np.testing.assert_array_equal(arrays["train_N"], everything["train_N"][:1000])
  assert arrays["end_W"].max() <= 1000


def refusal(action):
  with pytest.raises(DataError) as caught:
    action()
  assert "\n" not in str(caught.value)
  return str(caught.value)


def test_missing_text_is_named(tmp_path):
  says = refusal(Text(source=str(tmp_path / "nowhere.txt")).load)
  assert f"no file or folder '{tmp_path}/nowhere.txt'" in says
  assert "no file matches" in refusal(Text(source=str(tmp_path / "*.txt")).load)
  assert "holds no files" in refusal(Text(source=str(tmp_path)).load)


def test_empty_text_is_refused(tmp_path):
  (tmp_path / "empty.txt").touch()
  assert "empty.txt' is empty" in refusal(Text(source=f"{tmp_path}/empty.txt").load)


def test_wrong_utf8_names_the_file_and_the_byte(tmp_path):
  (tmp_path / "good.txt").write_text("good")
  (tmp_path / "latin.txt").write_bytes(b"gut: " + "ü".encode("latin-1") + b"b")
  says = refusal(Text(source=str(tmp_path)).load)
  assert "latin.txt' is not UTF-8 at byte 5" in says


def test_an_unreadable_file_is_named(folder, monkeypatch):
  def refuse(path):
    raise PermissionError(13, os.strerror(13), str(path))

  monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
  says = refusal(Text(source=str(folder)).load)
  assert "cannot read" in says and ".txt': Permission denied" in says


def test_text_shorter_than_one_window_says_how_long_it_is(tmp_path):
  path = tmp_path / "short.txt"
  path.write_text("x" * 1000)
  says = refusal(Text(source=str(path)).load)
  assert "1000 bytes" in says and "window + 1 = 513" in says and "50)" in says
  task, arrays, _ = loaded(path, window=32, scored=8)
  says = refusal(lambda: task.batch(arrays, KEY, 2, 900))
  assert "has 900 bytes" in says and "lower the training length below 900" in says
  assert task.batch(arrays, KEY, 2, 899).input_BL.shape == (2, 899)


def test_a_length_past_the_window_is_refused(folder):
  task, arrays, _ = loaded(folder, window=128)
  says = refusal(functools.partial(task.score, arrays, KEY, 2, 256, 256))
  assert "write text(window=256)" in says


@pytest.mark.parametrize(
  ("fields", "says"),
  [
    ({"split": "train"}, "Choose validation or test"),
    ({"split": "tets"}, "Did you mean 'test'"),
    ({"scored": 0}, "scored is 0"),
    ({"window": 32, "scored": 64}, "1 to window (32)"),
    ({"limit": 0}, "limit is 0"),
  ],
)
def test_wrong_fields_are_refused(fields, says):
  assert says in refusal(lambda: Text(**fields))


def test_more_bytes_than_an_array_counts_are_refused(folder, monkeypatch):
  monkeypatch.setattr("transformer_jax.data.tasks.language.text.MOST", 1000)
  assert "write text(limit=" in refusal(Text(source=str(folder), window=64).load)
