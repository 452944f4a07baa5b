"""BLEU of languages without spaces.

Reported: by sacreBLEU's tokenizer 13a a Chinese sentence is one word, BLEU was 0.0 and
was called no translation. Right: the tokenizer of the language, in the signature.
"""

import pytest
import sacrebleu

from transformer_jax.data import languages
from transformer_jax.data.base import GenerationSet, tasks
from transformer_jax.data.files import DataError
from transformer_jax.data.tokenizers import tokenizers
from transformer_jax.evaluation import generation_eval
from transformer_jax.evaluation.beam import Beam
from transformer_jax.evaluation.generation_eval import GenerationEval
from transformer_jax.evaluation.text_scores import nearest_targets, scores

FOUND = ["我喜欢在公园里散步", "今天天气很好我们去爬山"]
REFERENCES = ["我喜欢在公园里跑步", "今天天气很好我们去游泳"]
ENGLISH = ["I like walking in the park", "the weather is fine"]


def test_chinese_is_scored_by_the_tokenizer_of_chinese():
  right = sacrebleu.corpus_bleu(FOUND, [REFERENCES], tokenize="zh").score
  bleu, _ = scores(FOUND, REFERENCES)
  assert bleu.value == pytest.approx(right) and right > 70
  assert "tok:zh" in bleu.signature
  assert scores(REFERENCES, REFERENCES)[0].value == pytest.approx(100)


def run(tmp_path, pair="en-zh", fields=""):
  path = tmp_path / "all.tsv"
  lines = zip(ENGLISH * 30, REFERENCES * 30, strict=True)
  path.write_text("".join(f"{en}\t{zh}\n" for en, zh in lines), encoding="utf-8")
  return tasks.build(f"translation({str(path)!r}, {pair!r}, tokenizer='byte'{fields})")


class Answers:
  """Writes what it was given for each source."""

  def all(self, texts, how, rows):
    yield from (dict(zip(ENGLISH, FOUND, strict=True))[x] for x in texts)


def generation_set(task):
  return task.generation_set(task.load().fitted)


def test_a_run_records_the_tokenizer_of_the_target_language(tmp_path, monkeypatch):
  monkeypatch.setattr(generation_eval, "attention_map", lambda *_: {})
  asked = generation_set(run(tmp_path))
  assert asked.bleu == "zh"
  found = GenerationEval(Beam(1), 2, 2).record(asked, [Answers()])
  assert "tok:zh" in found["signatures"][0]
  wanted = sacrebleu.corpus_bleu(FOUND, [REFERENCES], tokenize="zh").score
  assert found["scores"][0]["bleu"] == pytest.approx(wanted)
  # The training text has these very sentences: its floors are by the same tokenizer.
  assert found["floors"]["nearest"]["bleu"] == pytest.approx(100)
  named = run(tmp_path, fields=", bleu_tokenizer='char'")
  assert generation_set(named).bleu == "char"
  # These references are Chinese.
  assert generation_set(run(tmp_path, "zh-en")).bleu == "zh"


@pytest.mark.parametrize(
  "language, text, name",
  [
    ("zh", "", "zh"),
    ("zh-TW", "", "zh"),
    ("zho", "", "zh"),
    ("ja", "", "char"),
    ("ko", "", "char"),
    ("th", "", "char"),
    ("de", "Guten Tag, 北京", "13a"),
    ("b", "今天天气很好 OK", "zh"),
    ("b", "私は公園を歩くのが好きです", "char"),
    ("b", "ฉันชอบเดินเล่นในสวน", "char"),
    ("ru", "Я люблю гулять", "13a"),
  ],
)
def test_each_language_has_a_tokenizer_that_needs_no_package(language, text, name):
  assert languages.bleu_tokenizer(language, [text]) == name
  sacrebleu.BLEU(tokenize=name).corpus_score(["a b"], [["a b"]])


def test_other_tokenizers_are_named_or_refused(tmp_path, monkeypatch):
  with pytest.raises(DataError, match="is none of sacreBLEU's that need no download"):
    run(tmp_path, fields=", bleu_tokenizer='flores200'")

  def missing(tokenize):
    raise RuntimeError("\nplease install\n\n  this\n")

  missing.TOKENIZERS = sacrebleu.BLEU.TOKENIZERS
  monkeypatch.setattr(sacrebleu, "BLEU", missing)
  with pytest.raises(DataError) as caught:
    run(tmp_path, fields=", bleu_tokenizer='ja-mecab'")
  assert "pip install 'sacrebleu[ja]', or write 'char'" in str(caught.value)
  assert "\n" not in str(caught.value)


def test_the_nearest_chinese_source_is_found_by_its_characters():
  train = [("我喜欢散步", "walk"), ("今天天气很好", "weather"), ("猫在睡觉", "cat")]
  found = nearest_targets(train, ["天气今天好", "猫睡"])
  assert found == ["weather", "cat"]


def test_european_text_is_scored_as_before():
  tokenizer = tokenizers.build("byte").train([])
  assert GenerationSet([], [], [], tokenizer).bleu == "13a"
  assert "tok:13a" in scores(ENGLISH, ENGLISH)[0].signature
