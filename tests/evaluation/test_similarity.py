"""Sentences to compare come from words or a file, vocabularies from either form."""

import types

import numpy as np
import pytest
from test_huggingface import CASES, written

from experiments import similarity


def test_a_token_of_number_0_is_no_padding(tmp_path):
  roberta = next(name for name in sorted(CASES) if "roberta" in name.lower())
  tokenizer = similarity.vocabulary(written(tmp_path, roberta))
  token_BL, real_BL = similarity.padded(tokenizer, ["the", "the the the"], None)
  assert tokenizer.start == 0 == token_BL[0, 0] and real_BL[1].all()
  rows = [
    [0, *tokenizer.encode(text), tokenizer.end] for text in ("the", "the the the")
  ]
  assert [real_L.sum() for real_L in real_BL] == [len(row) for row in rows]
  assert [row_L[:3].tolist() for row_L in token_BL] == [row[:3] for row in rows]


def test_sentences_stand_one_a_line(tmp_path, monkeypatch, capsys):
  file = tmp_path / "sentences"
  file.write_text("one\n\ntwo\nthree\n")
  flags = types.SimpleNamespace(folder="there", input=str(file))
  monkeypatch.setattr(similarity, "FLAGS", flags)
  seen = lambda folder, sentences: np.eye(len(sentences))
  monkeypatch.setattr(similarity, "similarities", seen)
  similarity.main(["similarity"])
  lines = capsys.readouterr().out.splitlines()
  assert lines == [f" 0.0000  {x}" for x in ("one | two", "one | three", "two | three")]
  with pytest.raises(ValueError, match="write sentences or --input"):
    similarity.main(["similarity", "one"])
