"""Windows whose targets stand word for word in the training split are not scored."""

import numpy as np
import pytest

from transformer_jax.data import files, overlap
from transformer_jax.data.base import tasks


@pytest.mark.parametrize("scored", [16, 64, 100])
@pytest.mark.parametrize("kind", [np.uint8, np.int32])
def test_repeated_windows_are_those_that_a_search_finds(scored, kind, monkeypatch):
  monkeypatch.setattr(overlap, "CHUNK", 500)  # overlaps lie across chunks too
  rng = np.random.default_rng(0)
  train_N, scored_N = (rng.integers(0, 200, 4000).astype(kind) for _ in range(2))
  for place in range(0, 3800, 300):  # copies of 60 to 159 tokens
    size = 60 + place // 300 * 23 % 100
    scored_N[place : place + size] = train_N[3800 - place : 3800 - place + size]
  end_W = np.arange(40, 4001, 20, np.int32)
  found_W = overlap.repeated(train_N, scored_N, end_W, scored)
  text = train_N.tobytes()

  def stands(first):
    return first >= 0 and scored_N[first : first + 64].tobytes() in text

  firsts = [range(end - max(scored, 64), end - 63) for end in end_W]
  assert found_W.tolist() == [any(map(stands, first)) for first in firsts]
  assert 0 < found_W.sum() < len(end_W) / 2


def test_texts_shorter_than_an_overlap_have_none():
  short = np.zeros(63, np.uint8)
  assert not overlap.repeated(short, np.zeros(500, np.uint8), np.array([500]), 64).any()
  assert not overlap.repeated(np.zeros(500, np.uint8), short, np.array([63]), 64).any()


@pytest.fixture
def folder(tmp_path):
  """Files of random letters; one of the test split repeats training text."""
  rng = np.random.default_rng(0)
  for n in range(40):
    letters = rng.integers(97, 123, 1000).astype(np.uint8).tobytes().decode()
    (tmp_path / f"{n}.txt").write_text(letters)
  by_split, _ = files.split(files.read(str(tmp_path)))
  train, test = (by_split[name][0] for name in ("train", "test"))
  assert len(by_split["test"]) > 1
  names = {path.name: path for path in tmp_path.iterdir()}
  copy = names[train.name.rpartition("/")[2]].read_text()[100:356]
  path = names[test.name.rpartition("/")[2]]
  path.write_text(path.read_text()[:300] + copy + path.read_text()[556:])
  return tmp_path


@pytest.mark.parametrize(
  "name,more", [("text", ""), ("tokens", ", tokenizer='byte'")], ids=["text", "tokens"]
)
def test_such_windows_are_dropped_and_counted(folder, name, more):
  def load(**options):
    given = "".join(f", {key}={value}" for key, value in options.items())
    return tasks.build(f"{name}('{folder}', window=128{more}{given})").load()

  (every, plain), (some, facts) = load(distinct=False), load()
  assert "left_out" not in plain and plain["windows"] == len(every["end_W"])
  dropped = {*every["end_W"].tolist()} - {*some["end_W"].tolist()}
  assert dropped and facts["windows"] == len(some["end_W"]) == plain["windows"] - len(
    dropped
  )
  unit = {"text": "bytes", "tokens": "tokens"}[name]
  assert facts["left_out"].startswith(f"{len(dropped)} of {plain['windows']} windows")
  assert f"repeat 64 of their scored {unit} word for word" in facts["left_out"]
  text = some["train_N"].tobytes()
  for end in some["end_W"]:
    assert some["scored_N"][end - 64 : end].tobytes() not in text
  for end in dropped:
    assert some["scored_N"][end - 64 : end].tobytes() in text
  # The text is the same: runs go on, and the report compares equal targets alone.
  assert facts["fingerprint"] == plain["fingerprint"]


def test_a_test_split_that_is_all_in_training_is_scored_with_a_note(tmp_path):
  for n in range(20):
    (tmp_path / f"{n}.txt").write_text("the same page everywhere, " * 400)
  arrays, facts = tasks.build(f"text('{tmp_path}', window=128)").load()
  assert facts["windows"] == len(arrays["end_W"]) > 0
  assert "all are scored, and their scores show what was memorized" in facts["notes"][0]
