"""Tokenized text on disk: the same tokens, never half or damaged ones."""

import json
import os
import threading
import time

import jax
import numpy as np
import pytest

from transformer_jax.data import encoded, token_cache
from transformer_jax.data.base import tasks
from transformer_jax.data.tasks.language import tokens, translation
from transformer_jax.data.tokenizers.subword import Subword


@pytest.fixture
def text(tmp_path, monkeypatch):
  """A file worth keeping, and a folder for its tokens."""
  monkeypatch.setenv(token_cache.VARIABLE, str(tmp_path / "cache"))
  monkeypatch.setattr(tokens, "LEAST", 1000)
  lines = [f"line {n} of a text with words and words {n % 7}" for n in range(400)]
  (tmp_path / "text.txt").write_text("\n".join(lines))
  return tmp_path / "text.txt"


def build(text, fields="tokenizer='subword(size=300)'"):
  return tasks.build(f"tokens({str(text)!r}, window=32, scored=4, {fields})")


def load(task):
  """Loads a task as a new process would."""
  tokens.train_memo.clear()
  return task.load()


def entries(text):
  return sorted((text.parent / "cache").iterdir())


def assert_same(one, other):
  assert one[1] == other[1]
  for name in ("train_N", "scored_N", "end_W"):
    np.testing.assert_array_equal(one[0][name], other[0][name])
    assert one[0][name].dtype == other[0][name].dtype


def never(monkeypatch):
  """Lets no vocabulary be learned and nothing be tokenized."""

  def fail(*_):
    raise AssertionError("tokenized again")

  monkeypatch.setattr(Subword, "encode", fail)
  monkeypatch.setattr(Subword, "train", fail)


def test_a_second_process_reads_the_same_tokens(text, monkeypatch):
  monkeypatch.setenv(token_cache.VARIABLE, "")
  plain = load(build(text))
  monkeypatch.setenv(token_cache.VARIABLE, str(text.parent / "cache"))
  assert_same(load(build(text)), plain)
  (entry,) = entries(text)
  never(monkeypatch)
  found = load(build(text))
  assert_same(found, plain)
  assert isinstance(found[0]["train_N"].base, np.memmap)
  # Other windows are cut from the same tokens.
  _, facts = load(build(text, "tokenizer='subword(size=300)', split='validation'"))
  assert facts["tokens"] == plain[1]["tokens"] and entries(text) == [entry]
  build(text).keep(text.parent / "run", build(text).load().fitted)
  assert (text.parent / "run" / "tokenizer" / "tokenizer.model").exists()


LINES = [(f"small text {n} of words", f"kleiner text {n % 9}") for n in range(60)]
CONLL = "\n\n".join(f"word{n}\tA\nof\tB\n{n % 7}\tA" for n in range(60)) + "\n"
APART = {  # a task's spec, and a file of what it reads
  "translation": ("pair='en-de', packed=2", "\n".join("\t".join(x) for x in LINES)),
  "classification": ("classes=2", "\n".join(f"{a}\t{b[-1] < '5'}" for a, b in LINES)),
  "tagging": ("classes=2", CONLL),
}


@pytest.mark.parametrize("name", APART)
def test_texts_that_stay_apart_are_tokenized_once(name, text, monkeypatch):
  fields, content = APART[name]
  folder = text.parent / "apart"
  folder.mkdir()
  for split in ("train", "test"):
    (folder / f"{split}.tsv").write_text(content)
  task = tasks.build(
    f"{name}({str(folder)!r}, {fields}, tokenizer='subword(size=300)')"
  )
  monkeypatch.setattr(encoded, "LEAST", 1000)
  monkeypatch.setenv(token_cache.VARIABLE, "")
  plain = task.load()
  monkeypatch.setenv(token_cache.VARIABLE, str(text.parent / "cache"))
  translation._learned.cache_clear()
  task.load()
  (entry,) = entries(text)
  (entry / "train.npy").write_bytes(b"damaged")
  task.load()  # which makes it again
  translation._learned.cache_clear()
  never(monkeypatch)
  arrays, facts = task.load()
  assert facts == plain[1]
  jax.tree.map(np.testing.assert_array_equal, arrays, plain[0])
  assert jax.tree.all(jax.tree.map(lambda x, y: x.dtype == y.dtype, arrays, plain[0]))
  batch = jax.jit(lambda data: task.batch(data, jax.random.key(0), 2, 16))
  jax.tree.map(np.testing.assert_array_equal, batch(arrays), batch(plain[0]))


def test_other_text_and_other_tokenizers_are_other_entries(text, monkeypatch):
  load(build(text))
  load(build(text, "tokenizer='subword(size=310)'"))
  load(build(text, "tokenizer='char'"))
  load(build(text, "tokenizer='subword(size=300)', limit=5000"))
  text.write_text(text.read_text().replace("words", "wards"))
  load(build(text))
  assert len(entries(text)) == 5
  monkeypatch.setattr(tokens, "LEAST", 10**9)  # small texts are not kept
  load(build(text, "tokenizer='char(size=50)'"))
  assert len(entries(text)) == 5


@pytest.mark.parametrize(
  "name",
  [
    "train.npy",
    "test_sizes.npy",
    "entry.json",
    "trained_on.json",
    "tokenizer/tokenizer.model",
  ],
)
@pytest.mark.parametrize("harm", ["flip", "cut", "gone", "list"])
def test_a_damaged_entry_is_made_again(text, name, harm):
  plain = load(build(text))
  (entry,) = entries(text)
  whole = (entry / name).read_bytes()
  path, middle = entry / name, len(whole) // 2
  path.unlink()  # what is mapped of it stays
  if harm == "cut":
    path.write_bytes(whole[:middle])
  elif harm == "flip":
    path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 4]) + whole[middle + 1 :])
  elif harm == "list":
    path.write_text("[]")
  assert_same(load(build(text)), plain)
  assert entries(text) == [entry] and path.read_bytes() == whole


def test_processes_that_write_at_once_do_no_harm(text):
  plain, found, failed = load(build(text)), [], []
  (entry,) = entries(text)
  made, together = token_cache._read(entry), threading.Barrier(4)

  def work():
    together.wait()
    try:
      found.append(token_cache.kept("f" * 32, lambda: made))
    except Exception as error:
      failed.append(error)

  threads = [threading.Thread(target=work) for _ in range(4)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert not failed and len(found) == 4
  for each in found:
    np.testing.assert_array_equal(each.token_N["train"], plain[0]["train_N"])
  assert [x.name for x in entries(text)] == sorted([entry.name, "f" * 32])


def test_where_nothing_can_be_written_tokens_are_made(text, monkeypatch):
  plain = load(build(text))
  (text.parent / "file").write_text("no folder")
  monkeypatch.setenv(token_cache.VARIABLE, str(text.parent / "file" / "below"))
  assert_same(load(build(text)), plain)


def test_what_nobody_read_for_a_month_goes_and_nothing_else_does(text):
  load(build(text))
  (entry,) = entries(text)
  old = entry.with_name(f"{entry.name}.abc.new")
  old.mkdir()
  other = entry.with_name("somebody's folder")
  other.mkdir()
  month = time.time() - 31 * 86_400
  for path in (entry / "entry.json", old, other):
    os.utime(path, (month, month))
  load(build(text, "tokenizer='char'"))
  left = entries(text)
  assert entry not in left and old not in left and other in left and len(left) == 2


def test_an_entry_says_what_it_is(text):
  _, facts = load(build(text))
  (entry,) = entries(text)
  said = json.loads((entry / "entry.json").read_text())
  learned = json.loads((entry / "trained_on.json").read_text())
  assert learned == facts["vocabulary_text"]
  assert said["splits"] == ["train", "validation", "test"]
  assert "tokenizer/tokenizer.model" in said["files"] and len(said["files"]) == 9


def test_the_folder_follows_xdg(monkeypatch, tmp_path):
  monkeypatch.delenv(token_cache.VARIABLE)
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  assert token_cache.folder() == tmp_path / "transformer_jax" / "tokens"
  monkeypatch.setenv(token_cache.VARIABLE, "")
  assert token_cache.folder() is None


def test_a_user_without_a_home_keeps_nothing(monkeypatch):
  for name in ("HOME", "XDG_CACHE_HOME", token_cache.VARIABLE):
    monkeypatch.delenv(name, raising=False)
  monkeypatch.setattr("pwd.getpwuid", lambda number: {}[number])
  assert token_cache.folder() is None
