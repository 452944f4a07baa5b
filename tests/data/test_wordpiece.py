"""WordPiece vocabularies: pieces as HuggingFace cuts them, files that are refused."""

import json
import pathlib

import pytest

from transformer_jax.data.files import DataError
from transformer_jax.data.tokenizers import tokenizers

FOLDER = pathlib.Path(__file__).parents[2] / "third_party"
RECORDED = json.loads((FOLDER / "tokenizers" / "wordpiece.json").read_text())


@pytest.mark.parametrize("lower", [True, False])
def test_words_are_cut_as_recorded(tmp_path, lower):
  path = tmp_path / "vocab.txt"
  path.write_text("\n".join(RECORDED["vocab"]), encoding="utf-8")
  tokenizer = tokenizers.build(f"wordpiece({str(path)!r}, lower={lower})").train()
  wanted = RECORDED["lower" if lower else "cased"]
  assert len(wanted) == len(RECORDED["texts"]) > 15
  for text, pieces in zip(RECORDED["texts"], wanted, strict=True):
    found = [tokenizer.pieces[n] for n in tokenizer.encode(text)]
    assert found == pieces, text
  assert tokenizer.pieces[tokenizer.start] == "[CLS]"
  assert tokenizer.pieces[tokenizer.end] == "[SEP]"
  tokenizer.save(tmp_path / "run")
  path.unlink()
  kept = tokenizers.build(f"kept({str(tmp_path)!r})")
  with pytest.raises(DataError, match="cannot read the vocabulary"):
    kept.train()
  (tmp_path / "run").rename(tmp_path / "tokenizer")
  kept = tokenizers.build(f"kept({str(tmp_path)!r})")
  assert kept.vocabulary == len(RECORDED["vocab"]) and kept.start == tokenizer.start
  assert kept.train(["no matter"]).fingerprint == tokenizer.fingerprint


def refusal(action):
  with pytest.raises(DataError) as caught:
    action()
  return str(caught.value)


def test_a_file_that_is_no_vocabulary_is_refused(tmp_path):
  build_ = lambda: tokenizers.build(f"wordpiece({str(tmp_path / 'v')!r})").train().start
  assert "cannot read" in refusal(build_)
  (tmp_path / "v").write_text("[CLS]\na\na\n")
  assert "1 lines repeat others" in refusal(build_)
  (tmp_path / "v").write_text("a\nb\n")
  assert "has no [CLS]" in refusal(build_)
  empty = tokenizers.build("wordpiece")
  assert "name a vocabulary" in refusal(lambda: empty.vocabulary)
