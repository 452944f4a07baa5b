"""Prepared corpora: the tokens of the files, read window by window; damage is named."""

import gzip
import json
import os

import jax
import numpy as np
import pytest

from transformer_jax.data import corpus_writer, documents, stores, windows
from transformer_jax.data.base import tasks
from transformer_jax.data.files import DataError
from transformer_jax.data.windows import HostText

WORDS = "the cat sat on a mat and saw two dogs, one of them \u00e9tranger\n".split(" ")


def text(seed, words):
  rng = np.random.default_rng(seed)
  return " ".join(rng.choice(WORDS, words))


@pytest.fixture
def folder(tmp_path):
  """40 files of some hundred bytes, in all splits; one test file repeats training."""
  source = tmp_path / "source"
  source.mkdir()
  for n in range(40):
    (source / f"{n}.txt").write_text(text(n, 100 + n))
  (source / "empty.txt").write_text("")
  return source


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
  """Blocks of 64 tokens, 4 in a file, and pieces of 50 bytes: windows cross them."""
  monkeypatch.setattr(corpus_writer, "BLOCK", 64)
  monkeypatch.setattr(corpus_writer, "FILE_BLOCKS", 4)
  monkeypatch.setattr(documents, "PIECE", 50)


def written(source, target, tokenizer="", **more):
  found, how = documents.read(str(source))
  facts = {"source": str(source), "split": how}
  return corpus_writer.write(target, found, facts, tokenizer, **more)


SIZES = "window=40, scored=16"


@pytest.mark.parametrize(
  "task, tokenizer",
  [
    ("text('{}', {})", ""),
    ("tokens('{}', {}, tokenizer='word(size=30)')", "word(size=30)"),
  ],
)
def test_a_corpus_is_the_text_of_its_files(folder, tmp_path, task, tokenizer):
  written(folder, tmp_path / "corpus", tokenizer)
  ours = tasks.build(task.format(tmp_path / "corpus", SIZES)).load()
  theirs = tasks.build(task.format(folder, SIZES)).load()
  (arrays, facts), (want, want_facts) = ours, theirs
  assert isinstance(arrays["train_N"], HostText)
  assert len(arrays["train_N"].store._paths) > 3
  np.testing.assert_array_equal(stores.whole(arrays["train_N"].store), want["train_N"])
  for name in want.keys() - {"train_N"}:
    np.testing.assert_array_equal(arrays[name], want[name])
  assert facts["windows"] == want_facts["windows"] > 10
  assert facts.get("left_out") == want_facts.get("left_out")
  assert facts["split"] == "by file" and facts["fingerprint"]
  if tokenizer:
    assert ours.fitted.pieces == theirs.fitted.pieces
    assert facts["vocabulary"] == want_facts["vocabulary"]


def test_one_file_is_cut_as_without_a_corpus(folder, tmp_path):
  source = tmp_path / "one.txt"
  source.write_text("\u00e9" * 777 + text(3, 400))
  written(source, tmp_path / "corpus")
  (arrays, facts) = tasks.build(f"text('{tmp_path}/corpus', {SIZES})").load()
  want, _ = tasks.build(f"text('{source}', {SIZES})").load()
  np.testing.assert_array_equal(stores.whole(arrays["train_N"].store), want["train_N"])
  np.testing.assert_array_equal(arrays["scored_N"], want["scored_N"])
  assert facts["split"] == "within each file"


def test_windows_that_repeat_training_text_are_those_of_the_files(
  tmp_path, monkeypatch
):
  """The last 5% of this file stand in its first half too, across pieces."""
  monkeypatch.setattr(corpus_writer.overlap, "CHUNK", 90)
  source = tmp_path / "one.txt"
  source.write_text(text(5, 500) + text(7, 300) + text(5, 80))
  written(source, tmp_path / "corpus")
  _, facts = tasks.build(f"text('{tmp_path}/corpus', {SIZES})").load()
  _, want = tasks.build(f"text('{source}', {SIZES})").load()
  assert facts.get("left_out") == want.get("left_out")
  assert facts.get("notes") == want.get("notes")
  assert "repeat 64" in f"{facts.get('left_out')}{facts.get('notes')}"


def test_scored_splits_are_limited(folder, tmp_path):
  corpus = written(folder, tmp_path / "corpus", scored=700)
  scored_N, size_D = corpus.scored("test")
  place_N = corpus.repeated("test", [corpus])
  assert len(scored_N) == len(place_N) == size_D.sum() == 700
  assert corpus.listing["splits"]["train"]["tokens"] > 5000


def test_a_mixture_has_the_windows_of_its_parts(folder, tmp_path):
  other = tmp_path / "other.txt"
  other.write_text(text(99, 900).upper())
  written(folder, tmp_path / "a")
  written(other, tmp_path / "b")
  task = tasks.build(f"text('0.25 * {tmp_path}/a + 0.75 * {tmp_path}/b', {SIZES})")
  arrays, facts = task.load()
  train = arrays["train_N"]
  assert train.weights == (0.25, 0.75) and len(train.sizes) == 2
  assert facts["fingerprint"].count("+") == 1
  starts = (
    task.batch({"train_N": recorder(train)}, jax.random.key(0), 400, 20)
    and recorder.last.reads[0][0]
  )
  read = [bytes(window) for window in train.store.read(starts.on_host(), 21)]
  upper = sum(window == window.upper() for window in read)
  assert 250 < upper < 350


def recorder(train):
  from transformer_jax.data.windows import Recorder

  recorder.last = Recorder(train)
  return recorder.last


def damaged(path, change):
  content = bytearray(path.read_bytes())
  change(content)
  path.write_bytes(bytes(content))


def cut(content):
  del content[len(content) // 2 :]


def flip(content):
  content[len(content) - 2] ^= 1


@pytest.mark.parametrize(
  "name, change, message",
  [
    ("train-00000.records", cut, r"has [\d,]+ bytes, not [\d,]+.*prepare it again"),
    ("test.documents.npy", cut, "test.documents.npy is not what was written"),
    ("test.repeated.npy", flip, "test.repeated.npy is not what was written"),
    ("corpus.json", flip, "not what was written.*prepare the corpus again"),
  ],
)
def test_a_damaged_file_is_named_before_training(
  folder, tmp_path, name, change, message
):
  written(folder, tmp_path / "corpus")
  damaged(tmp_path / "corpus" / name, change)
  with pytest.raises(DataError, match=message):
    tasks.build(f"text('{tmp_path}/corpus', {SIZES})").load()


def test_a_flipped_bit_is_an_error_when_its_record_is_read(folder, tmp_path):
  corpus = written(folder, tmp_path / "corpus")
  whole = stores.whole(corpus.store("train"))
  path = tmp_path / "corpus" / "train-00000.records"
  place = path.read_bytes().find(whole[:16].tobytes())
  damaged(path, lambda content: content.__setitem__(place, content[place] ^ 1))
  with pytest.raises(DataError, match=r"of the corpus .* is damaged"):
    corpus.store("train").read(np.array([0]), 8)


def test_a_missing_file_is_named(folder, tmp_path):
  written(folder, tmp_path / "corpus")
  (tmp_path / "corpus" / "train-00001.records").unlink()
  with pytest.raises(DataError, match="train-00001.records: No such file"):
    tasks.build(f"text('{tmp_path}/corpus', {SIZES})").load()


def test_what_a_task_cannot_read_is_refused(folder, tmp_path):
  written(folder, tmp_path / "bytes")
  written(folder, tmp_path / "words", "word(size=30)")
  cases = {
    f"tokens('{tmp_path}/bytes')": "is a corpus of bytes; write text",
    f"text('{tmp_path}/words', {SIZES})": "is a corpus of tokens; write tokens",
    f"tokens('{tmp_path}/words', {SIZES}, tokenizer='byte')": "tokenizer='word",
    f"text('{tmp_path}/bytes', {SIZES}, limit=9)": "leave out limit",
    f"text('0.5 * {tmp_path}/bytes + 0.5 * {tmp_path}/words')": "prepare both alike",
    f"text('0.5 * {tmp_path}/bytes + 0.5 * {folder}')": "is no prepared corpus",
    f"text('0.5*{tmp_path}/bytes + 0.5*{folder}')": "a mixture is written '0.7 \\* FO",
    f"text('0.5 * {tmp_path}/bytes + {folder}')": "a mixture is written",
    f"text('0 * {tmp_path}/bytes + 0.5 * {tmp_path}/bytes')": "leave it out",
  }
  for spec, message in cases.items():
    with pytest.raises(DataError, match=message):
      tasks.build(spec).load()
  with pytest.raises(DataError, match="is there already"):
    written(folder, tmp_path / "bytes")
  with pytest.raises(DataError, match="Did you mean 'epochs'"):
    tasks.build("text(order='epoch')")


def test_nothing_is_left_of_a_corpus_that_fails(folder, tmp_path):
  (folder / "bad.txt").write_bytes(b"good text" * 9 + b"\xff")
  with pytest.raises(DataError, match=r"bad.txt' is not UTF-8 near byte 81"):
    written(folder, tmp_path / "corpus")
  assert os.listdir(tmp_path) == ["source"]


def test_a_split_of_tfds_becomes_a_corpus(monkeypatch, tmp_path):
  records = {"train": ["one two", "three"] * 20, "test": ["four " * 30]}
  monkeypatch.setattr(documents.tfds, "has_split", lambda n, d, split: split in records)
  monkeypatch.setattr(documents.tfds, "texts", lambda n, d, split: iter(records[split]))
  corpus = written("tfds:lines", tmp_path / "corpus")
  assert corpus.listing["split"] == "by TFDS"
  assert bytes(corpus.store("train").read(np.array([0]), 12)[0]) == b"one twothree"
  assert corpus.listing["splits"]["validation"]["tokens"] == 0
  json.dumps(corpus.listing)


@pytest.mark.parametrize("size", [1, 3, 64, 65, 200])
def test_windows_of_any_size_are_those_of_the_array(
  folder, tmp_path, size, monkeypatch
):
  monkeypatch.setattr(stores, "TOGETHER", 7)
  store = written(folder, tmp_path / "corpus").store("train")
  token_N = stores.whole(store)
  last = len(token_N) - size
  start_B = np.array([0, last, 5, 5, 63, 64, *np.linspace(0, last, 40, dtype=int)])
  want_BL = token_N[start_B[:, None] + np.arange(size)]
  np.testing.assert_array_equal(store.read(start_B, size), want_BL)


def test_a_full_disk_is_one_sentence_and_leaves_nothing(folder, tmp_path, monkeypatch):
  def full(writer, content):
    raise RuntimeError("write() failed: No space left on device; writing x; at byte 9")

  monkeypatch.setattr(corpus_writer.SplitWriter, "_put", full)
  with pytest.raises(DataError, match="write.. failed: No space left on device; noth"):
    written(folder, tmp_path / "corpus")
  assert os.listdir(tmp_path) == ["source"]


def test_a_window_that_stands_in_another_part_of_a_mixture_is_left_out(tmp_path):
  """The training text of b is the test text of a."""
  (tmp_path / "a.txt").write_text(text(1, 700))
  a = written(tmp_path / "a.txt", tmp_path / "a")
  (tmp_path / "b.txt").write_bytes(bytes(a.scored("test")[0]) * 3 + b"x" * 200)
  b = written(tmp_path / "b.txt", tmp_path / "b")
  sizes = {name: len(bytes(x.scored("test")[0])) for name, x in (("a", a), ("b", b))}
  for mixture, first in (("1 * {0}/a + 1 * {0}/b", 0), ("1 * {0}/b + 1 * {0}/a", 1)):
    for _ in range(2):  # looked up, and kept
      task = tasks.build(f"text('{mixture.format(tmp_path)}', {SIZES})")
      arrays, facts = task.load()
      ends = arrays["end_W"] - first * sizes["b"]
      # Too near to the start of the text for 64 tokens: these are not looked up.
      assert [end for end in ends if 64 <= end <= sizes["a"]] == []
      assert facts["left_out"].startswith("6 of 8 windows")
  assert [*(tmp_path / "a").glob("test.repeated.*.npy")]


def test_packed_text_is_read_in_pieces(tmp_path):
  content = text(4, 900).encode()
  (tmp_path / "plain.txt").write_bytes(content)
  (tmp_path / "packed.txt.gz").write_bytes(gzip.compress(content))
  plain = written(tmp_path / "plain.txt", tmp_path / "plain")
  packed = written(tmp_path / "packed.txt.gz", tmp_path / "packed")
  assert packed.fingerprint == plain.fingerprint
  (tmp_path / "packed.txt.gz").write_bytes(gzip.compress(content)[:-30])
  with pytest.raises(DataError, match="packed.txt.gz' is damaged"):
    written(tmp_path / "packed.txt.gz", tmp_path / "again")


def test_epochs_that_cannot_be_counted_are_refused(folder, tmp_path, monkeypatch):
  written(folder, tmp_path / "a")
  mixture = f"text('1 * {tmp_path}/a + 0.0001 * {tmp_path}/a', {SIZES}, order='epochs')"
  task = tasks.build(mixture)
  with pytest.raises(DataError, match="the weight 0.0001 gives part 2 of the mixture"):
    task.check(task.load()[0], 8)
  monkeypatch.setattr(windows, "MOST_WINDOWS", 100)
  task = tasks.build(f"text('{tmp_path}/a', {SIZES}, order='epochs')")
  with pytest.raises(DataError, match="more than 100 windows of 8"):
    task.check(task.load()[0], 8)
