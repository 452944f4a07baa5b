"""Tokenizers: texts come back, vocabularies are counted by hand, folders checked."""

import hashlib
import json
import re
from collections import Counter

import pytest

from transformer_jax.data.files import DataError
from transformer_jax.data.tokenizers import (
  BOS,
  EOS,
  MASK,
  PAD,
  UNK,
  load,
  tokenizers,
)
from transformer_jax.spec import SpecError

TEXTS = [
  "The size of the cell is the size of its text.",
  "Größe und Text: die Zelle (rot) ist größer!",
  "the cell, the row and the column",
] * 3
SPECS = ("byte", "char(size=60)", "word(size=40)", "subword(size=400)")


@pytest.fixture(scope="module", params=SPECS)
def tokenizer(request):
  return tokenizers.build(request.param).train(TEXTS)


def refusal(action):
  with pytest.raises(DataError) as caught:
    action()
  assert "\n" not in str(caught.value)
  return str(caught.value)


def test_texts_come_back(tokenizer):
  for text in TEXTS:
    tokens = tokenizer.encode(text)
    assert tokenizer.decode(tokens) == text
    assert MASK < min(tokens) and max(tokens) < tokenizer.vocabulary
    assert tokenizer.decode([BOS, *tokens, EOS, PAD, PAD, MASK]) == text


def test_the_special_tokens_are_the_first_and_no_text_spells_one(tokenizer):
  assert (PAD, BOS, EOS, UNK, MASK) == (0, 1, 2, 3, 4)
  assert tokenizer.pieces[:5] == ("<pad>", "<s>", "</s>", "<unk>", "<mask>")
  assert len(tokenizer.pieces) <= tokenizer.vocabulary
  assert not {PAD, BOS, EOS, MASK} & set(tokenizer.encode("<pad> <s> </s> <mask>"))


def test_what_a_model_has_room_for_but_was_never_learned_is_left_out(tokenizer):
  end = tokenizer.vocabulary - 1
  assert isinstance(tokenizer.decode([*tokenizer.encode("the cell"), end]), str)
  text = tokenizer.decode([*tokenizer.encode("the cell"), tokenizer.vocabulary])
  assert text == "the cell"


@pytest.mark.parametrize("spec", ["byte", "subword(size=400)"])
def test_no_text_is_unknown(spec):
  trained = tokenizers.build(spec).train(TEXTS)
  for text in ("Ελληνικά 𝄞\tx\n  <s>", " two  spaces ", ""):
    assert UNK not in trained.encode(text)
    assert trained.decode(trained.encode(text)) == text


def test_bytes_are_counted_from_the_first_free_token():
  trained = tokenizers.build("byte(sentinels=2)").train()
  assert trained.encode("aé") == [7 + 0x61, 7 + 0xC3, 7 + 0xA9]
  assert trained.vocabulary == 263 and trained.sentinel(1) == 6
  assert trained.pieces[5:8] == ("<extra_0>", "<extra_1>", "<0x00>")


def test_the_most_common_characters_are_kept():
  text = "aaa bb cd"
  trained = tokenizers.build("char(size=8)").train([text])
  # Three a, two spaces and two b; the space is spelled before b.
  assert trained.pieces[5:] == ("a", " ", "b")
  assert trained.encode("ab cd") == [5, 7, 6, UNK, UNK]
  assert trained.decode([5, UNK]) == "a<unk>"


def test_the_most_common_words_are_kept():
  trained = tokenizers.build("word(size=9)").train(TEXTS)
  words = Counter()
  for text in TEXTS:  # punctuation is a word of its own, with no space before it
    spaced = re.sub(r"(\w)([^\w\s])", r"\1 \2", text)
    words.update(spaced.split())
  assert words["the"] == 15 and words["cell"] == 6
  assert trained.pieces[5] == "▁the" and len(trained.pieces) == 9
  assert trained.encode("the  the\nzebra") == [5, 5, UNK]
  assert trained.decode([5, UNK]) == "the <unk>"


def test_a_subword_merges_the_most_common_pair_first():
  trained = tokenizers.build("subword(size=300)").train(["abab abab ab"] * 4)
  merged = trained.pieces[5 + 256 :]
  assert merged[0] == "ab"  # the pair a, b is in every word, most of them twice
  assert trained.encode("ab") != trained.encode("ba")


def test_the_same_texts_give_the_same_vocabulary(tokenizer):
  again = type(tokenizer)(**tokenizer._arguments()).train(iter(TEXTS))
  assert again == tokenizer and again.fingerprint == tokenizer.fingerprint
  said = json.dumps([tokenizer.name, list(tokenizer.pieces)])
  assert tokenizer.fingerprint == hashlib.sha256(said.encode()).hexdigest()


def test_a_folder_keeps_the_tokenizer(tokenizer, tmp_path):
  tokenizer.save(tmp_path / "kept")
  found = load(tmp_path / "kept")
  assert found == tokenizer
  assert found.encode(TEXTS[1]) == tokenizer.encode(TEXTS[1])
  tokenizer.save(tmp_path / "kept")  # the same again is no error
  names = {path.name for path in (tmp_path / "kept").iterdir()}
  assert names - {"tokenizer.model"} == {"tokenizer.json"}


def test_another_vocabulary_is_refused(tokenizer, tmp_path):
  tokenizer.save(tmp_path)
  other = tokenizers.build("char(size=20)").train(["another text"])
  says = refusal(lambda: other.save(tmp_path))
  assert f"the vocabulary in {tmp_path} is {tokenizer.name} of " in says
  assert tokenizer.fingerprint[:12] in says and other.fingerprint[:12] in says
  assert load(tmp_path) == tokenizer


def test_a_damaged_vocabulary_is_kept_aside_and_written_anew(tmp_path, capsys):
  trained, folder = tokenizers.build("subword(size=300)").train(TEXTS), tmp_path / "run"
  trained.save(folder)
  for number, name in enumerate(("tokenizer.json", "tokenizer.model"), 1):
    (folder / name).write_bytes(b"no vocabulary")
    trained.save(folder)
    assert load(folder) == trained and "written anew" in capsys.readouterr().err
    assert len([*tmp_path.glob("run.damaged*")]) == number


def test_a_damaged_folder_is_refused(tmp_path):
  trained = tokenizers.build("subword(size=300)").train(TEXTS)
  trained.save(tmp_path)
  path = tmp_path / "tokenizer.json"
  whole = path.read_text()
  path.write_text(whole.replace('"tokenizer": "subword"', '"tokenizer": "char"'))
  assert "is no vocabulary" in refusal(lambda: load(tmp_path))
  path.write_text(whole[:100])
  assert "is no vocabulary" in refusal(lambda: load(tmp_path))
  path.write_text(whole.replace(trained.fingerprint, "0" * 64))
  assert "was changed since it was written" in refusal(lambda: load(tmp_path))
  path.write_text(whole)
  (tmp_path / "tokenizer.model").write_bytes(b"no model")
  assert "tokenizer.model is damaged" in refusal(lambda: load(tmp_path))
  (tmp_path / "tokenizer.model").unlink()
  assert "tokenizer.model': No such file" in refusal(lambda: load(tmp_path))
  assert "tokenizer.json': No such file" in refusal(lambda: load(tmp_path / "none"))


@pytest.mark.parametrize(
  ("spec", "says"),
  [
    ("char(size=5)", "char(size=6) or more"),
    ("subword(size=100)", "subword(size=262) or more"),
    ("subwords", "Did you mean 'subword'"),
  ],
)
def test_a_wrong_tokenizer_is_refused(spec, says):
  with pytest.raises((DataError, SpecError), match=re.escape(says)):
    tokenizers.build(spec)


def test_what_cannot_be_done_says_what_to_do():
  subword = tokenizers.build("subword(size=270)")
  assert "no text to train on" in refusal(lambda: subword.train([" "]))
  assert "write a larger size" in refusal(lambda: subword.train(TEXTS))
  assert "call train(texts)" in refusal(lambda: subword.encode("x"))
  assert "char has no vocabulary" in refusal(lambda: tokenizers["char"]().encode("x"))
  assert "write byte(sentinels=3)" in refusal(lambda: tokenizers["byte"]().sentinel(2))
