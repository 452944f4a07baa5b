"""Pairs of texts with a label: rows by a loop over tokens, and GLUE by its names."""

import importlib
import json

import jax
import numpy as np
import pytest
from test_labels import FIRST, build, bytes_of, refusal, rows_of, scoring, training
from test_prepare import mocked  # noqa: F401, a fixture

from transformer_jax.data.base import tasks
from transformer_jax.data.files import split_of
from transformer_jax.data.tokenizers import BOS, EOS

PAIR = "classes=2", "second='second'"


def pairs(count=80):
  """Returns (text, second, label), all different, of 2 to 20 and 2 to 24 letters."""
  rng, rows = np.random.default_rng(1), []
  for n in range(count):
    said = lambda most: "".join(map(chr, rng.integers(97, 123, rng.integers(2, most))))
    rows.append((said(20), said(24), ("no", "yes")[n % 2]))
  return rows


ROWS = pairs()


@pytest.fixture
def tsv(tmp_path):
  path = tmp_path / "all.tsv"
  path.write_text("".join("\t".join(row) + "\n" for row in ROWS))
  return path


def shortened(a, b, room):
  """Takes one token after another from the longer text, from the second if equal."""
  a, b = [*a], [*b]
  while len(a) + len(b) > room:
    (a if len(a) > len(b) else b).pop()
  return a, b


def row_of(first, second, length):
  """Returns the tokens and the types of a row."""
  a, b = shortened(bytes_of(first), bytes_of(second), length - 3)
  return [BOS, *a, EOS, *b, EOS], [0] * (len(a) + 2) + [1] * (len(b) + 1)


def types_of(batch):
  for row, real_L in zip(batch.at.data["type_BL"], batch.at.real_BL, strict=True):
    yield row[real_L].tolist()


@pytest.mark.parametrize(
  "kind, length", [("encoder", 5), ("decoder", 16), ("encoder", 17)]
)
def test_a_pair_is_framed_and_its_longer_text_is_cut(tsv, kind, length):
  task, known = build("classification", tsv, f"kind='{kind}'", *PAIR), {}
  for first, second, label in ROWS:
    if split_of(f"{first}\0{second}") == "train":
      tokens, types = row_of(first, second, length)
      known.setdefault((*tokens, *types), set()).add(("no", "yes").index(label))
  batch, seen = training(task, 96, length), set()
  for (tokens, labels, positions), types in zip(
    rows_of(batch), types_of(batch), strict=True
  ):
    ((place, label),) = labels
    assert place == (0 if kind == "encoder" else len(tokens) - 1)
    assert label in known[*tokens, *types]
    np.testing.assert_array_equal(positions, np.arange(len(tokens)))
    seen.add((*tokens, *types))
  assert len(seen) > (20 if length > 5 else 5)


def test_scored_pairs_are_the_same_at_every_length(tsv):
  task = build("classification", tsv, *PAIR)
  wanted = [row for row in ROWS if split_of("\0".join(row[:2])) == "test"]
  for length, batch in zip(
    (9, 64), scoring(task, len(wanted), (9, 64), 64), strict=True
  ):
    expected = [row_of(a, b, length) for a, b, _ in wanted]
    found = zip(rows_of(batch), types_of(batch), strict=True)
    assert sorted((x, y) for (x, _, _), y in found) == sorted(expected)


def test_all_formats_of_pairs_say_the_same(tsv, tmp_path):
  arrays, facts = build("classification", tsv, *PAIR).load()
  assert sum(facts["examples"].values()) < len(ROWS)  # validation is left
  path = tmp_path / "all.jsonl"
  lines = [{"q": a, "second": b, "label": c} for a, b, c in ROWS]
  path.write_text("".join(json.dumps(line) + "\n" for line in lines))
  others, other = build("classification", path, *PAIR, "text='q'").load()
  jax.tree.map(np.testing.assert_array_equal, arrays, others)
  assert other["fingerprint"] == facts["fingerprint"]
  whole = [len(a) + len(b) + 3 for a, b, _ in ROWS]
  assert abs(facts["fit"]["32"] - np.mean(np.array(whole) <= 32)) < 0.1
  path = tmp_path / "named.tsv"
  path.write_text("text\tsecond\tlabel\n" + tsv.read_text())
  others, _ = build("classification", path, *PAIR).load()
  jax.tree.map(np.testing.assert_array_equal, arrays, others)


def test_a_pair_without_a_side_is_counted(tmp_path):
  for split in ("train", "test"):
    said = "a\tb\tyes\n\tb\tno\na\t\tno\nc\td\tno\n"
    (tmp_path / f"{split}.tsv").write_text(said)
  _, facts = build("classification", tmp_path, *PAIR).load()
  assert facts["examples"] == {"train": 2, "test": 2}
  assert facts["left_out"]["train"]["empty"] == 2
  # The second text belongs to what is looked up: both pairs are known.
  assert facts["guess"] == {"label": "no", "accuracy": 0.5, "lookup": 1.0}


def test_bad_pairs_are_refused(tsv, tmp_path):
  lines = tmp_path / "few.tsv"
  lines.write_text("a\tb\tyes\na\tyes\n")
  said = refusal(build("classification", lines, *PAIR).load)
  assert "line 2 has 2 of the 3 or 4 fields it needs: text TAB second" in said
  said = refusal(lambda: build("classification", tsv, *PAIR, "lines=3"))
  assert "write lines=0" in said
  task = build("classification", tsv, *PAIR)
  assert "write train.length=5 or more" in refusal(lambda: task.tokens(4))
  (tmp_path / "folder").mkdir()
  said = refusal(build("classification", tmp_path / "folder", *PAIR).load)
  assert "holds no train.tsv, train.csv or train.jsonl" in said


GLUE = {
  "sst2": ("text='sentence'", ("sentence",), ("negative", "positive")),
  "mrpc": (
    "text='sentence1', second='sentence2'",
    ("sentence1", "sentence2"),
    ("not_equivalent", "equivalent"),
  ),
  "qnli": (
    "text='question', second='sentence'",
    ("question", "sentence"),
    ("entailment", "not_entailment"),
  ),
}


@pytest.mark.parametrize("name", sorted(GLUE))
def test_glue_is_read_by_its_names(mocked, name):  # noqa: F811
  fields, features, names = GLUE[name]
  more = "tokenizer='byte', classes=2, split='validation'"
  task = tasks.build(f"classification('tfds:glue/{name}', {fields}, {more})")
  arrays, facts = task.load()
  assert facts["version"].startswith(f"glue/{name}/") and facts["split"] == "by TFDS"
  assert facts["examples"] == {"train": 30, "validation": 30}
  there = importlib.import_module("tensorflow_datasets").builder(f"glue/{name}")
  there = there.as_data_source(split="validation")
  expected, text = [], lambda x: x.decode() if isinstance(x, bytes) else x
  for n in range(30):
    texts = [bytes_of(text(there[n][x]).strip()) for x in features]
    tokens = [BOS, *(token for each in texts for token in (*each, EOS))]
    label = sorted(names).index(names[int(there[n]["label"])])
    expected.append((tokens, [(0, label)]))
  longest = max(len(tokens) for tokens, _ in expected)
  (batch,) = scoring(task, 30, (longest,), longest)
  assert sorted((x, y) for x, y, _ in rows_of(batch)) == sorted(expected)
  assert ("type_BL" in batch.at.data) == (len(features) == 2)
  assert max(max(tokens) for tokens, _ in expected) >= FIRST + 97


def test_glue_has_splits_of_other_names(mocked):  # noqa: F811
  fields = "text='premise', second='hypothesis', classes=3, split='validation_matched'"
  task = tasks.build(f"classification('tfds:glue/mnli', {fields})")
  assert task.pairs
  # The mock has the three usual splits.
  assert "has no split 'validation_matched'" in refusal(task.load)
  with pytest.raises(ValueError, match="split 'train' cannot be scored"):
    tasks.build("classification('tfds:glue/sst2', split='train')")
