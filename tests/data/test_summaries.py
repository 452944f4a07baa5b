"""Summaries: ROUGE by hand, its baselines, the task, and Debian synopses."""

import sys

import pytest
from test_prepare import offline as offline
from test_prepare import place

from transformer_jax.data import prepare
from transformer_jax.data.base import GenerationSet, tasks
from transformer_jax.data.sources.base import split_of
from transformer_jax.data.tokenizers import tokenizers
from transformer_jax.evaluation import generation_eval, rouge
from transformer_jax.evaluation.beam import Beam
from transformer_jax.evaluation.summary_eval import SummaryEval

REFERENCE = "The quick brown fox jumps over the lazy dog"
SUMMARY = "The quick brown dog jumps on the log."


def f1(precision, recall):
  return 100 * 2 * precision * recall / (precision + recall)


def test_rouge_is_what_one_counts_by_hand():
  # 8 and 9 words; 6 alike, 3 pairs (the quick, quick brown and none with dog) alike: of
  # 7 and 8 pairs two; the longest common subsequence is "the quick brown jumps the".
  one, two, longest = rouge.rouge([SUMMARY], [REFERENCE])
  assert [one.name, two.name, longest.name] == ["rouge1", "rouge2", "rougeL"]
  assert one.value == pytest.approx(f1(6 / 8, 6 / 9))
  assert two.value == pytest.approx(f1(2 / 7, 2 / 8))
  assert longest.value == pytest.approx(f1(5 / 8, 5 / 9))
  assert "rouge-score" in one.signature


def test_a_mean_over_texts_with_its_interval():
  texts, references = [SUMMARY, REFERENCE] * 20, [REFERENCE] * 40
  one, *_ = rouge.rouge(texts, references, resamples=200)
  assert one.value == pytest.approx((100 + f1(6 / 8, 6 / 9)) / 2)
  assert 2 < one.margin < 10  # 1.96 * 14.7 / sqrt(40) is 4.6


@pytest.mark.parametrize("texts,references", [([], []), (["a"], ["a", "b"])])
def test_unequal_lists_are_refused(texts, references):
  with pytest.raises(ValueError, match="as many"):
    rouge.rouge(texts, references)


def test_without_its_library_one_sentence_says_what_to_install(monkeypatch):
  monkeypatch.setitem(sys.modules, "rouge_score.rouge_scorer", None)
  with pytest.raises(ValueError, match=r"pip install -e .\[rouge\]"):
    rouge.rouge(["a"], ["a"])


def test_baselines_are_the_first_words_and_the_nearest_summary():
  train = [("cats purr loudly", "on cats"), ("dogs bark", "about dogs that bark")]
  found = rouge.baselines(["my dogs and I went out"], train)
  assert found == {"lead": ["my dogs and"], "nearest": ["about dogs that bark"]}


def record(package, mark, lines):
  text = "\n ".join(lines)
  return f"Package: {package}\nDescription-md5: {mark}\nDescription-en: {text}\n"


def test_a_synopsis_is_the_summary_of_the_first_paragraph(tmp_path, offline):
  records = [
    record(
      f"pack{n}-dev", f"m{n}", [f"tool {n}", f"This does {n}", "things.", ".", "x"]
    )
    for n in range(150)
  ]
  records.append(record("pack3", "same", ["another", "This does 3", "things."]))
  records.append(record("short", "no", ["a synopsis alone"]))
  name = "mirror_dists_stable_main_i18n_Translation-en"
  place(tmp_path / "downloads" / "debian_synopses", {name: "\n".join(records).encode()})
  prepare.prepare("debian_synopses", str(tmp_path))
  spec = f"summary('tfds:debian_synopses', tokenizer='byte', data_dir='{tmp_path}')"
  found, _ = tasks.build(spec).read()
  for split in ("train", "test"):
    wanted = {
      (f"This does {n} things.", f"tool {n}")
      for n in range(150)
      if split_of(f"pack{n}") == split
    }
    assert {(pair.source, pair.target) for pair in found[split]} == wanted and wanted


def test_a_table_without_a_summary_is_named(tmp_path):
  for split in ("train", "test"):
    (tmp_path / f"{split}.tsv").write_text("text\tsummary\nCats purr.\t\n")
  with pytest.raises(ValueError, match="holds no pair; give more text"):
    tasks.build(f"summary('{tmp_path}', tokenizer='byte')").load()


@pytest.mark.parametrize(
  "field,says",
  [
    ("split='train'", "summary: split 'train' cannot"),
    ("packed=0", "summary: packed is 0"),
    ("max_length=1", "write summary(max_length=...)"),
  ],
)
def test_messages_name_the_task_of_the_user(tmp_path, field, says):
  for split in ("train", "test"):
    (tmp_path / f"{split}.tsv").write_text("text\tsummary\nCats purr.\tCats.\n")
  with pytest.raises(ValueError) as error:
    tasks.build(f"summary('{tmp_path}', tokenizer='byte', {field})").load()
  assert says in str(error.value) and "translation" not in str(error.value)


def test_summaries_are_scored_beside_their_baselines(monkeypatch):
  monkeypatch.setattr(generation_eval, "attention_map", lambda *_: {})
  sources = ["cats purr and dogs bark", "the sun is a star like others"]
  references = ["cats purr and dogs", "the sun is a star"]
  train = [("birds sing of spring", "birds sing well enough")]
  tokenizer = tokenizers.build("byte").train([])
  examples = GenerationSet(sources, references, train, tokenizer)
  found = SummaryEval(Beam(1), 2, 2).recorded(examples, [Echo(), Echo(references)])
  assert list(found["better"]) == ["rougeL", "rouge1", "rouge2"]
  # The first four words are the first summary, and four of the second one's five.
  lead = found["floors"]["lead"]["rougeL"]
  assert lead == pytest.approx((100 + f1(1, 4 / 5)) / 2)
  assert found["scores"][1]["rouge2"] == 100 and found["below"] == [True, False]
  assert found["made"] == "summary" and len(found["signatures"]) == 1


class Echo:
  """A translator that writes its sources again, or given texts."""

  def __init__(self, texts=None):
    self.texts = texts

  def all(self, sources, how, batch_size):
    return self.texts or sources
