"""Parallel text: files in, pairs out; batches are the pairs, in rows of their own."""

import functools
import json

import jax
import numpy as np
import pytest
from absl import flags as absl_flags

from experiments import run
from experiments.setup import flags
from transformer_jax.data.base import tasks
from transformer_jax.data.files import DataError
from transformer_jax.data.readers import bitext
from transformer_jax.data.tasks.language.translation import Translation
from transformer_jax.data.tokenizers import BOS, EOS, PAD, load
from transformer_jax.training.json_files import read_json

KEY = jax.random.key(0)
BOTH = ("train", "test")
# Sides of 1 to 15 bytes.
PAIRS = [("abcdefghijklmno"[: 1 + n % 15], f"{n:02d}" * (1 + n % 7)) for n in range(60)]


@pytest.fixture
def folder(tmp_path):
  """A folder of plain files: train.en and train.de, and so on."""
  parts = {"train": PAIRS[:40], "dev": PAIRS[40:50], "test": PAIRS[50:]}
  for name, pairs in parts.items():
    for side, language in enumerate(("en", "de")):
      text = "".join(f"{pair[side]}\n" for pair in pairs)
      (tmp_path / f"{name}.{language}").write_text(text, encoding="utf-8")
  return tmp_path


def refusal(action):
  with pytest.raises(DataError) as caught:
    action()
  assert "\n" not in str(caught.value)
  return str(caught.value)


def sides(pairs):
  return [(pair.source, pair.target) for pair in pairs]


def test_plain_files_are_pairs_line_by_line(folder):
  found, facts = bitext.read(str(folder), "en-de", ("train", "validation"))
  assert sides(found["train"]) == PAIRS[:40]
  assert sides(found["validation"]) == PAIRS[40:50]
  assert found["train"][6].where == "train line 7"
  assert facts["split"] == "by file name"
  assert facts["pairs"] == {"train": 40, "validation": 10}
  back, _ = bitext.read(str(folder), "de-en", BOTH)
  assert sides(back["test"]) == [(de, en) for en, de in PAIRS[50:]]
  json.dumps(facts)


def test_every_form_gives_the_same_pairs(folder, tmp_path):
  tsv, rows, nested = (folder / f"all{n}" for n in (".tsv", ".jsonl", "2.jsonl"))
  tsv.write_text("".join(f"{en}\t{de}\n" for en, de in PAIRS))
  rows.write_text("".join(json.dumps({"en": e, "de": d}) + "\n" for e, d in PAIRS))
  inner = [{"translation": {"de": d, "en": e}} for e, d in PAIRS]
  nested.write_text("\ufeff" + "\r\n".join(map(json.dumps, inner)))
  (folder / "all.en").write_text("\n".join(en for en, _ in PAIRS))
  (folder / "all.de").write_text("\n".join(de for _, de in PAIRS))
  marks = set()
  for path in (tsv, rows, nested, folder / "all"):
    found, facts = bitext.read(str(path), "en-de", ("train", "validation", "test"))
    # Lines without documents are split by their place: 90 %, 5 %, 5 %.
    assert sides(found["train"]) == PAIRS[:54]
    assert sides(found["validation"]) == PAIRS[54:57]
    assert sides(found["test"]) == PAIRS[57:]
    assert facts["split"] == "by place in the file"
    marks.add(facts["fingerprint"])
  assert len(marks) == 1


def test_a_document_is_never_split(tmp_path):
  rows = [f"text {n}\tText {n}\tpage {n % 30}\n" for n in range(300)]
  (tmp_path / "pages.tsv").write_text("".join(rows))
  path = str(tmp_path / "pages.tsv")
  found, facts = bitext.read(path, "en-de", ("train", "validation", "test"))
  pages = [{pair.document for pair in found[split]} for split in found]
  assert sum(map(len, pages)) == len(set.union(*pages)) == 30
  assert sum(facts["pairs"].values()) == 300 and facts["split"] == "by document"


def test_what_is_empty_or_too_long_is_counted(tmp_path):
  lines = [
    "fifteen letters\teins",
    "\tzwei",
    "",
    "three\t",
    f"four\t{'v' * 40}",
    "f" * 41 + "\tx",
  ]
  lines += [f"line {n}\tZeile {n}" for n in range(60)]
  (tmp_path / "text.tsv").write_text("\n".join(lines) + "\n")
  task = Translation(str(tmp_path / "text.tsv"), tokenizer="byte", max_length=40)
  arrays, facts = task.load()
  said = facts["left_out"]["train"]
  assert said == {
    "empty": 3,
    "first empty": "text.tsv line 2",
    "too long": 1,
    "first too long": "text.tsv line 6",
  }
  train = 66 * 9 // 10
  assert facts["pairs"]["train"] == len(arrays["train"]["size_P2"]) == train - 4
  assert facts["left_out"]["test"] == {"empty": 0, "too long": 0}
  assert facts["fit"]["64"] == 1.0
  # All but one of 55 pairs have sides of at most 15 bytes and an end.
  assert facts["fit"]["16"] == round(54 / 55, 4)
  json.dumps(facts)


BAD = {
  "one side": ({"t.en": "a\nb\n"}, "t", "t.en' has no other side: there is no"),
  "unequal": (
    {"t.en": "a\nb\n", "t.de": "a\n"},
    "t",
    "t.en' has 2 lines and '{}/t.de' has 1: ",
  ),
  "unequal, the source shorter": (
    {"t.en": "a\n", "t.de": "a\nb\n"},
    "t",
    "t.en' has 1 lines and '{}/t.de' has 2: ",
  ),
  "utf8": (
    {"t.en": "a\nb\nc", "t.de": b"a\nb\n\xfc"},
    "t",
    "t.de' is not UTF-8 at byte 4 (invalid start byte, line 3)",
  ),
  "missing field": ({"t.tsv": "a\tb\nc\n"}, "t.tsv", "t.tsv' line 2 has 1 of the 2 or"),
  "many fields": ({"t.tsv": "a\tb\tc\td\n"}, "t.tsv", "t.tsv' line 1 has 4 of the 2"),
  "no json": (
    {"t.jsonl": '{"en": "a", "de": "b"}\nx'},
    "t.jsonl",
    "line 2 is not JSON",
  ),
  "no key": ({"t.jsonl": '{"en": "a"}\n'}, "t.jsonl", "line 1 has no text 'de'"),
  "null": ({"t.jsonl": '{"en": "a", "de": null}\n'}, "t.jsonl", "has no text 'de'"),
  "a list": ({"t.jsonl": "[1]\n"}, "t.jsonl", "line 1 has no text 'en'"),
  "nothing": ({}, "none", "there is no parallel text '{}/none' in "),
  "no train": ({"test.en": "a", "test.de": "b"}, "", "put train.en and train.de,"),
  "no test": (
    {"train.tsv": "a\tb\n", "valid.tsv": "a\tb\n"},
    "",
    "holds no test text; add test.en and test.de, or",
  ),
  "all empty": ({"t.tsv": "\t\n" * 40}, "t.tsv", "split of '{}/t.tsv' holds no pair"),
  "empty file": ({"t.tsv": ""}, "t.tsv", "the train split of '{}/t.tsv' holds no pair"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_text_is_refused_with_its_place(name, tmp_path):
  content, source, says = BAD[name]
  for path, text in content.items():
    (tmp_path / path).write_bytes(text if isinstance(text, bytes) else text.encode())
  read = functools.partial(bitext.read, str(tmp_path / source), "en-de", BOTH)
  assert says.format(tmp_path) in refusal(read)


@pytest.mark.parametrize(
  ("fields", "says"),
  [
    ({"pair": "en"}, "write it as in 'en-de'"),
    ({"pair": "en-en"}, "names no two languages"),
    ({"split": "train"}, "Choose validation or test"),
    ({"max_length": 0}, "max_length is 0"),
    ({"packed": 0}, "packed is 0"),
    ({"limit": 0}, "limit is 0"),
  ],
)
def test_wrong_fields_are_refused(fields, says):
  assert says in refusal(lambda: Translation("x", **fields))


def test_pairs_that_are_all_too_long_say_what_to_write(folder):
  task = Translation(str(folder), tokenizer="byte", max_length=1)
  assert "write translation(max_length=...)" in refusal(task.load)


@functools.partial(jax.jit, static_argnums=(0, 3, 4))
def train(task, arrays, key, rows, length):
  return task.batch(arrays, key, rows, length)


def segments(batch, row):
  """Returns the (source, target) texts of a row by its segments, and checks places."""
  text, source = batch.at, batch.source_at
  wide = lambda x, like: np.broadcast_to(np.asarray(x), like.shape)[row]
  segment_L = wide(text.segment_BL, batch.input_BL) * (np.asarray(batch.weight_BL)[row])
  own_L = np.asarray(source.segment_BL)[row]
  found = {}
  for n in sorted(set(own_L.tolist()) - {0}):
    here, there = np.flatnonzero(own_L == n), np.flatnonzero(segment_L == n)
    for places, at in ((here, source), (there, text)):
      np.testing.assert_array_equal(np.diff(places), 1)
      order = wide(at.order_BL, batch.input_BL)[places]
      np.testing.assert_array_equal(order, np.arange(len(places)))
    source_L = np.asarray(batch.source_BL)[row, here]
    input_L = np.asarray(batch.input_BL)[row, there]
    target_L = np.asarray(batch.target_BL)[row, there]
    assert input_L[0] == BOS and source_L[-1] == target_L[-1] == EOS
    np.testing.assert_array_equal(input_L[1:], target_L[:-1])
    read = lambda tokens: bytes(int(token) - 5 for token in tokens[:-1]).decode()
    found[n] = read(source_L), read(target_L)
  return found


@pytest.mark.parametrize("packed", [1, 6])
def test_training_rows_are_the_pairs(folder, packed):
  task = Translation(str(folder), tokenizer="byte", packed=packed)
  arrays, _ = task.load()
  batch = train(task, arrays, KEY, 64, 12)
  assert batch.input_BL.shape == batch.source_BL.shape == (64, 12)
  short = [pair for pair in PAIRS[:40] if max(map(len, pair)) < 12]
  drawn = [segments(batch, row) for row in range(64)]
  seen = {pair for row in drawn for pair in row.values()}
  assert seen <= {*short} and len(seen) > len({*short}) * 0.8
  assert all(1 in row for row in drawn)
  sizes = [len(row) for row in drawn]
  assert max(sizes) == 1 if packed == 1 else np.mean(sizes) > 1.2
  weight = sum(len(target) + 1 for row in drawn for _, target in row.values())
  assert float(batch.weight_BL.sum()) == weight
  padding = np.asarray(batch.source_at.segment_BL) == 0
  assert (np.asarray(batch.source_BL)[padding] == PAD).all()
  assert (np.asarray(batch.target_BL)[np.asarray(batch.weight_BL) == 0] == PAD).all()
  assert batch.at.order_BL.shape == ((1, 12) if packed == 1 else (64, 12))


def test_a_packed_row_has_no_room_for_what_was_dropped(folder):
  """Draws the same pairs and packs them with a loop."""
  task = Translation(str(folder), tokenizer="byte", packed=6)
  arrays, _ = task.load()
  sizes = np.asarray(arrays["train"]["size_P2"])
  fit = int((sizes.max(axis=1) + 1 <= 20).sum())
  chosen = np.asarray(jax.random.randint(KEY, (8, 6), 0, fit))
  batch = train(task, arrays, KEY, 8, 20)
  for row in range(8):
    used, want = [0, 0], {}
    for n, pair in enumerate(chosen[row]):
      more = [sizes[pair][side] + 1 for side in (0, 1)]
      if all(u + m <= 20 for u, m in zip(used, more, strict=True)):
        used = [u + m for u, m in zip(used, more, strict=True)]
        want[n + 1] = tuple(size - 1 for size in more)
    got = {n: tuple(map(len, pair)) for n, pair in segments(batch, row).items()}
    assert got == want


def test_batches_are_pure_in_the_key(folder):
  task = Translation(str(folder), tokenizer="byte")
  arrays, _ = task.load()
  one, again, other = (train(task, arrays, jax.random.key(n), 8, 12) for n in (3, 3, 4))
  jax.tree.map(np.testing.assert_array_equal, one, again)
  assert (np.asarray(one.source_BL) != np.asarray(other.source_BL)).any()


def test_every_scored_pair_that_fits_comes_once_at_the_right_end(folder):
  task = Translation(str(folder), tokenizer="byte")
  arrays, _ = task.load()
  program = jax.jit(lambda length: task.score(arrays, KEY, 10, length, 16))
  for length in (12, 16):
    fitting = [pair for pair in PAIRS[50:] if max(map(len, pair)) < length]
    assert 3 < len(fitting) < 10 or length == 16
    batch = program(length)
    count = min(10, len(fitting))
    got = [segments(batch, row)[1] for row in range(count)]
    assert sorted(got) == sorted(fitting)
    assert (np.asarray(batch.weight_BL)[:count, -1] == 1).all()
    assert not np.asarray(batch.weight_BL)[count:].any()
    assert (np.asarray(batch.source_BL)[:, -1] == EOS).all()
  assert program._cache_size() == 1


def test_the_vocabulary_is_learned_from_the_training_text_alone(folder):
  task = Translation(str(folder), tokenizer="char(size=40)")
  _, facts = task.load()
  learned = task.learned(task.read()[0]["train"])
  seen = {char for pair in PAIRS[:40] for side in pair for char in side}
  assert set(learned.pieces[5:]) == seen and task.vocabulary == 40
  assert facts["vocabulary"] == learned.fingerprint


def test_a_run_keeps_its_vocabulary_and_refuses_another(folder, tmp_path):
  task = tasks.build(f"translation({str(folder)!r}, tokenizer='subword(size=320)')")
  task.keep(tmp_path / "run", task.load().fitted)
  kept = load(tmp_path / "run" / "tokenizer")
  assert kept == task.learned(task.read()[0]["train"])
  task.keep(tmp_path / "run", task.load().fitted)
  (folder / "train.en").write_text("another text\n" * 40)
  says = refusal(lambda: task.keep(tmp_path / "run", task.load().fitted))
  assert f"the vocabulary in {tmp_path}/run/tokenizer is subword of" in says


CONFIG = """
from experiments.configs import base

def get_config():
  config = base.get_config()
  config.task = "translation('.', tokenizer='char(size=40)', split='validation')"
  config.seeds = (0,)
  config.model.update(kind="encoder_decoder", position="sinusoidal")
  config.model.update(width=16, layers=1, heads=2, feedforward=32)
  config.train.update(length=16, batch_size=8, steps=32, steps_per_dispatch=16)
  config.evaluate.update(lengths=(1,), examples=8, batch_size=8)
  config.train.update(checkpoint_every=32)
  return config
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_a_run_trains_on_plain_files_and_keeps_its_vocabulary(folder, monkeypatch):
  monkeypatch.chdir(folder)
  (folder / "question.py").write_text(CONFIG)
  argv = ["run", "--config=question.py", "--workdir=out"]
  values = absl_flags.FlagValues()
  flags.define(argv, values)
  assert run.main(flags.parse(argv, values)) == 0
  (made,) = (folder / "out" / "runs").iterdir()
  result = read_json(made / "result.json")
  assert result["data"]["pairs"] == {"train": 40, "validation": 10}
  measures = [row["measure"] for row in result["scores"]]
  assert measures == ["bleu", "chrf", "accuracy", "accuracy"]
  assert load(made / "tokenizer").fingerprint == result["data"]["vocabulary"]
