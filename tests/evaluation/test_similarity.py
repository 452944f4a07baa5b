"""Sentences to compare come from words or a file, vocabularies from either form."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import recorded_bert
from test_huggingface import CASES, written

from experiments import similarity
from transformer_jax import interop
from transformer_jax.data.tokenizers import tokenizers
from transformer_jax.models import Transformer


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


def test_similar_sentences_are_near(tmp_path):
  recorded_bert.write(tmp_path)
  loaded = interop.load(tmp_path, core="dense")
  # Padding changes nothing, and a sentence is as near to itself as can be.
  texts = ["the well", "the badly well the", "the well"]
  both = similarity.similarities(tmp_path, texts)
  np.testing.assert_allclose(np.diag(both), 1, atol=1e-6)
  np.testing.assert_allclose(both[0, 2], 1, atol=1e-6)
  one = similarity.similarities(tmp_path, texts[:1] + texts[:1])
  np.testing.assert_allclose(one[0, 1], 1, atol=1e-6)
  tokenizer = tokenizers.build(f"wordpiece('{tmp_path}/vocab.txt')").train()
  model = Transformer(loaded.arch)
  weights = {"params": jax.tree.map(jnp.asarray, loaded.params)}
  mean = []
  for text in texts[:2]:
    token_1L = np.array([[2, *tokenizer.encode(text), 3]])
    encode = lambda row: model.apply(weights, row, method="encode")[0]
    x_1LD = jax.jit(encode)(token_1L)
    v_D = np.asarray(x_1LD)[0].astype(np.float64).mean(axis=0)
    mean.append(v_D / np.sqrt((v_D**2).sum()))
  np.testing.assert_allclose(both[0, 1], mean[0] @ mean[1], atol=1e-5)
  with pytest.raises(ValueError, match="longer than the model's 48"):
    similarity.similarities(tmp_path, ["the " * 60])
