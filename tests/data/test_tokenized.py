"""Tasks over tokenized text, checked against loops written from the papers' words."""

import functools
import json
import re

import jax
import numpy as np
import pytest

from transformer_jax.data.base import tasks
from transformer_jax.data.files import DataError
from transformer_jax.data.tasks.language.spans import gaps_of
from transformer_jax.data.tokenizers import BOS, EOS, MASK, PAD, load

KEY = jax.random.key(0)
BYTE = "tokenizer='byte(sentinels=40)'"
FIRST = 45  # the token of the byte 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """60 files of 300 to 890 letters."""
  rng, folder = np.random.default_rng(0), tmp_path_factory.mktemp("text")
  for n in range(60):
    letters = rng.integers(97, 123, 300 + 10 * n, dtype=np.uint8)
    (folder / f"{n}.txt").write_bytes(bytes(letters))
  return folder


def build(name, folder, *fields):
  said = ", ".join((f"{str(folder)!r}", BYTE, "window=128", *fields))
  return tasks.build(f"{name}({said})")


@functools.cache
def trainer(task, rows, length):
  arrays, _ = task.load()
  return jax.jit(lambda key: task.batch(arrays, key, rows, length))


def training(task, rows, length, key=KEY):
  return jax.device_get(trainer(task, rows, length)(key))


@functools.cache
def scorer(task, rows, bucket):
  arrays, _ = task.load()
  return jax.jit(lambda length: task.score(arrays, KEY, rows, length, bucket))


def scoring(task, rows, lengths, bucket):
  program = scorer(task, rows, bucket)
  batches = [jax.device_get(program(length)) for length in lengths]
  assert program._cache_size() == 1
  return batches


def text_of(tokens):
  return bytes(int(token) - FIRST for token in tokens)


def documents(folder):
  return [path.read_bytes() for path in folder.glob("*.txt")]


def refusal(action):
  with pytest.raises(DataError) as caught:
    action()
  assert "\n" not in str(caught.value)
  return str(caught.value)


def test_windows_are_tokens_of_the_text(folder):
  task = build("tokens", folder, "scored=16")
  arrays, facts = task.load()
  whole = b"".join(documents(folder))
  assert facts["tokens"].keys() == {"train", "validation", "test"}
  assert sum(facts["tokens"].values()) == len(whole) + 60  # each document has an end
  assert (arrays["train_N"] == EOS).sum() == facts["files"]["train"]
  json.dumps(facts)
  batch = training(task, 8, 32)
  for row in range(8):
    parts = text_of(np.where(batch.input_BL[row] == EOS, FIRST, batch.input_BL[row]))
    assert all(part in whole for part in parts.split(b"\0"))
  np.testing.assert_array_equal(batch.input_BL[:, 1:], batch.target_BL[:, :-1])
  (scored,) = scoring(task, 4, [64], 64)
  assert all(
    any(text_of(row) in text for text in documents(folder)) for row in scored.input_BL
  )


def test_a_subword_is_longer_than_a_byte_and_kept_with_the_run(tmp_path):
  words = "the cell and the row and the size of the text\nthe table\n"
  (tmp_path / "words.txt").write_text(words * 200)
  spec = (
    f"tokens({str(tmp_path)!r}, tokenizer='subword(size=320)', window=16, scored=4)"
  )
  task = tasks.build(spec)
  arrays, facts = task.load()
  task.keep(tmp_path / "run", task.load().fitted)
  kept = load(tmp_path / "run" / "tokenizer")
  assert kept.fingerprint == facts["vocabulary"] and task.vocabulary == 320
  assert facts["vocabulary_size"] == len(kept.pieces) == arrays["pieces"] <= 320
  text = kept.decode(arrays["train_N"].tolist())
  assert text == words * 180 and arrays["train_N"].size < len(text) / 3


def test_a_prefix_sees_itself_and_what_follows_counts(folder):
  task = build("prefix_tokens", folder, "scored=16")
  plain = training(build("tokens", folder, "scored=16"), 64, 32)
  batch = training(task, 64, 32)
  np.testing.assert_array_equal(batch.input_BL, plain.input_BL)
  sizes = []
  for row in range(64):
    counted = np.flatnonzero(batch.weight_BL[row])
    np.testing.assert_array_equal(counted, np.arange(counted[0], 32))
    sizes.append(counted[0] + 1)  # its last token predicts the first that counts
    sees = [max(place, sizes[-1] - 1) for place in range(32)]
    np.testing.assert_array_equal(batch.at.horizon_BL[row], sees)
  assert min(sizes) >= 1 and max(sizes) <= 31 and len({*sizes}) > 20
  for length, scored in zip((24, 64), scoring(task, 4, (24, 64), 64), strict=True):
    # 16 tokens count; all that comes before the first of them is the prefix.
    first = 64 - 16
    np.testing.assert_array_equal(
      scored.weight_BL, np.tile(np.arange(64) >= first, (4, 1))
    )
    sees = scored.at.horizon_BL[0, 64 - length :]
    prefix = length - 16 + 1
    want = [max(place, prefix - 1) for place in range(length)]
    np.testing.assert_array_equal(sees, want)


def test_hidden_tokens_are_15_percent_in_three_ways(folder):
  """Devlin et al.: 80% masked, 10% random, 10% unchanged; only those are predicted."""
  batch = training(build("masked", folder, "scored=16"), 512, 64)
  plain = training(build("tokens", folder, "scored=16"), 512, 64)
  np.testing.assert_array_equal(batch.target_BL, plain.input_BL)
  counts = batch.weight_BL == 1
  same = batch.input_BL == batch.target_BL
  masked = batch.input_BL == MASK
  assert (same | counts).all()
  total = counts.sum()
  # 32,768 tokens: the standard deviation of each share is at most 0.006.
  assert abs(total / counts.size - 0.15) < 0.01
  assert abs(masked.sum() / total - 0.8) < 0.02
  other = counts & ~same & ~masked
  assert abs(other.sum() / total - 0.1) < 0.02
  assert abs((counts & same).sum() / total - 0.1) < 0.02
  values = batch.input_BL[other]
  assert values.min() >= FIRST and values.max() < FIRST + 256
  assert len({*values.tolist()}) > 150  # any byte, not only letters
  again = training(build("masked", folder, "scored=16"), 512, 64, jax.random.key(1))
  assert ((again.weight_BL == 1) != counts).any()
  assert not counts[batch.target_BL == EOS].any()


def test_half_of_the_second_texts_follow_the_first(folder):
  """Devlin et al., section 3.1: 50% of the time B is what follows A, else any text."""
  task = build("masked", folder, "scored=16", "nsp=True")
  batch = training(task, 512, 64)
  whole = task.load()[0]["train_N"].tolist()
  whole = ",".join(map(str, whole))
  hidden = batch.weight_BL[:, 1:]
  assert {*np.unique(hidden).tolist()} == {0.0, 1.0}
  answers = []
  for row in range(512):
    token = batch.target_BL[row].copy()
    answers.append(token[0])
    assert batch.input_BL[row, 0] == BOS and batch.input_BL[row, -1] == EOS
    assert token[31] == token[63] == EOS and not batch.weight_BL[row, [31, 63]].any()
    first, second = (",".join(map(str, x)) for x in (token[1:31], token[32:63]))
    assert first in whole and second in whole
    assert (f"{first},{second}" in whole) == (token[0] == BOS)
  assert {*answers} == {BOS, EOS} and abs(np.mean(np.equal(answers, BOS)) - 0.5) < 0.07
  # Both losses are means, and their sum is trained on.
  np.testing.assert_allclose(batch.weight_BL[:, 0], hidden.sum() / 512, rtol=1e-6)
  kinds = [0] * 32 + [1] * 32
  np.testing.assert_array_equal(batch.at.data["type_BL"], [kinds])
  plain = scoring(build("masked", folder, "scored=16"), 4, [64], 64)
  paired = scoring(task, 4, [64], 64)
  jax.tree.map(np.testing.assert_array_equal, paired, plain)
  assert "4 tokens have no room for a pair" in refusal(lambda: training(task, 4, 4))


def test_the_same_tokens_are_hidden_at_every_length(folder):
  task = build("masked", folder, "scored=16", "rate=0.02")
  short, long = scoring(task, 64, (20, 128), 128)
  np.testing.assert_array_equal(short.weight_BL, long.weight_BL)
  np.testing.assert_array_equal(short.input_BL[:, 112:], long.input_BL[:, 112:])
  np.testing.assert_array_equal(short.target_BL[:, 112:], long.target_BL[:, 112:])
  (alone,) = scoring(task, 64, (32,), 32)
  np.testing.assert_array_equal(alone.weight_BL, short.weight_BL[:, 96:])
  np.testing.assert_array_equal(alone.input_BL, long.input_BL[:, 96:])
  assert (long.weight_BL.sum(axis=1) >= 1).all()
  assert not long.weight_BL[:, :112].any()
  assert not (short.input_BL[:, :108]).any()


def restored(source, target):
  """Puts the gaps that the decoder wrote back into what the encoder read."""
  assert source[-1] == target[-1] == EOS
  gaps, text, sentinels = {}, [], []
  for token in target[:-1]:
    if 5 <= token < FIRST:
      sentinels.append(int(token))
      gaps[int(token)] = []
    else:
      gaps[sentinels[-1]].append(token)
  for token in source[:-1]:
    text += gaps[int(token)] if 5 <= token < FIRST else [token]
  assert sentinels == list(range(5, 5 + len(sentinels)))
  assert [int(x) for x in source if 5 <= x < FIRST] == sentinels
  return text, gaps


def test_gaps_fit_into_the_text(folder):
  """Raffel et al.: 15% of the tokens, spans of 3 on average, unique sentinels."""
  task = build("spans", folder, "scored=16")
  batch = training(task, 64, 100)
  plain = training(build("tokens", folder, "scored=16"), 64, 100)
  # 15 of 100 tokens go, in 5 gaps: 85 + 5 sentinels and an end, 15 + 5 and an end.
  assert batch.source_BL.shape == (64, 91) and batch.target_BL.shape == (64, 21)
  assert task.sides(100) == (91, 21) and task.tokens(100) == 91
  sizes = []
  for row in range(64):
    text, gaps = restored(batch.source_BL[row], batch.target_BL[row])
    np.testing.assert_array_equal(text, plain.input_BL[row])
    sizes += [len(gap) for gap in gaps.values()]
  assert min(sizes) == 1 and max(sizes) > 5 and np.mean(sizes) == 3
  assert (batch.input_BL[:, 0] == BOS).all() and (batch.weight_BL == 1).all()
  np.testing.assert_array_equal(batch.input_BL[:, 1:], batch.target_BL[:, :-1])
  assert (batch.source_at.order_BL == np.arange(91)).all()


def test_scored_gaps_stand_at_the_right_end(folder):
  task = build("spans", folder, "scored=16")
  plain = build("tokens", folder, "scored=16")
  batches = scoring(task, 4, (20, 64), 64)
  windows = scoring(plain, 4, (20, 64), 64)
  for length, batch, window in zip((20, 64), batches, windows, strict=True):
    source, target = task.sides(length)
    for row in range(4):
      kept, gone = batch.source_BL[row, -source:], batch.target_BL[row, -target:]
      text, _ = restored(kept, gone)
      np.testing.assert_array_equal(text, window.input_BL[row, 64 - length :])
      assert batch.input_BL[row, -target] == BOS
    assert (batch.weight_BL.sum(axis=1) == target).all()
    np.testing.assert_array_equal(batch.weight_BL[0] > 0, batch.at.real_BL[0])
    assert (batch.source_BL[:, :-source] == PAD).all()
    absent = batch.source_BL.shape[1] - source
    real = np.arange(batch.source_BL.shape[1]) >= absent
    np.testing.assert_array_equal(batch.source_at.real_BL[0], real)


def test_every_cut_is_as_likely():
  """3 of 7 places in 2 gaps: 3 cuts of what stays times 2 of what goes."""
  keys = jax.random.split(KEY, 3000)
  drawn = jax.jit(jax.vmap(lambda key: gaps_of(key, 7, 3, 2, 9)))(keys)
  rows, counts = np.unique(np.asarray(drawn), axis=0, return_counts=True)
  want = set()
  for stays in (1, 2, 3):
    for goes in (1, 2):
      sizes = [stays, goes, 4 - stays, 3 - goes]
      marks = "".join(mark * n for mark, n in zip("0101", sizes, strict=True))
      want.add(marks + "00")
  assert {"".join(str(int(x)) for x in row) for row in rows} == want
  # 500 of each are expected; the standard deviation is 20.
  assert abs(counts - 500).max() < 100


@pytest.mark.parametrize(
  ("spec", "says"),
  [
    ("masked(rate=0)", "rate is 0; it must be between 0 and 1"),
    ("spans(rate=1.0)", "rate is 1.0 and mean 3.0"),
    ("spans(mean=0.5)", "a mean of at least 1"),
    ("tokens(scored=0)", "scored is 0"),
  ],
)
def test_wrong_fields_are_refused(spec, says):
  with pytest.raises(DataError, match=re.escape(says)):
    tasks.build(spec)


def test_too_few_sentinels_say_how_many():
  task = tasks.build("spans(tokenizer='byte(sentinels=3)')")
  says = refusal(lambda: task.tokens(100))
  assert "has 5 gaps and the tokenizer 3 sentinels; write sentinels=5" in says
