"""BLEU by the length of the source: bins, scores, and the figure of a report."""

import numpy as np
import pytest
import sacrebleu

from experiments.reporting import generations, load
from experiments.reporting.findings import Findings
from transformer_jax.data.base import GenerationSet
from transformer_jax.data.tokenizers import tokenizers
from transformer_jax.evaluation import generation_eval
from transformer_jax.evaluation.beam import Beam
from transformer_jax.evaluation.generation_eval import GenerationEval
from transformer_jax.evaluation.source_lengths import length_bins

RNG = np.random.default_rng(0)
SOURCES = [" ".join("w" * int(n)) for n in RNG.integers(1, 60, 200)]


def test_bins_hold_each_text_once_and_lengths_are_in_one_bin():
  bins = length_bins(SOURCES)
  places = sorted(n for each in bins for n in each.places)
  assert places == [*range(200)] and 4 <= len(bins) <= 6
  for each, after in zip(bins, bins[1:], strict=False):
    assert each.last < after.first
  for each in bins:
    lengths = [len(SOURCES[n].split()) for n in each.places]
    assert (min(lengths), max(lengths)) == (each.first, each.last)
    assert len(each.places) >= 20


@pytest.mark.parametrize(
  "sources, names",
  [
    ([], []),
    (["a"] * 7, ["1"]),
    (["a"] * 30 + ["b c"] * 19, ["1-2"]),  # the rest is too few for a bin
    (["a"] * 30 + ["b c"] * 20, ["1", "2"]),
    (["你好"] * 30 + ["你好吗"] * 30, ["2", "3"]),  # a character is a word
    (["a"] * 30 + ["..."] * 30, ["0", "1"]),
  ],
)
def test_bins_at_the_edges(sources, names):
  assert [each.name for each in length_bins(sources)] == names


def test_each_bin_has_the_bleu_of_its_texts():
  references = [f"{source} end of it" for source in SOURCES]
  hypotheses = [f"{source} end of that" for source in SOURCES]
  bins = length_bins(SOURCES)
  tokenizer = tokenizers.build("byte").train([])
  examples = GenerationSet(SOURCES, references, [], tokenizer)
  scored = GenerationEval(Beam(1), 9, 9)._by_length(examples, bins, hypotheses)
  for each, found in zip(bins, scored, strict=True):
    mine = [hypotheses[n] for n in each.places]
    there = [references[n] for n in each.places]
    assert found["bleu"] == sacrebleu.corpus_bleu(mine, [there]).score
    assert found["chrf"] == sacrebleu.corpus_chrf(mine, [there]).score
  lost = [None, *hypotheses[1:]]
  assert GenerationEval(Beam(1), 9, 9)._by_length(examples, bins, lost) is None


class Half:
  """A translator that is right about short texts alone; a lost one writes nothing."""

  def __init__(self, lost=False):
    self.lost = lost

  def all(self, texts, how, rows):
    for text in texts:
      right = text if len(text) < 50 else "something else was said here"
      yield None if self.lost else right


def test_a_run_records_them_and_its_report_draws_them(monkeypatch, tmp_path):
  monkeypatch.setattr(generation_eval, "attention_map", lambda *_: {})
  tokenizer = tokenizers.build("byte").train([])
  asked = GenerationSet(SOURCES, SOURCES, [("a", "b")], tokenizer)
  written = GenerationEval(Beam(1), 200, 50).record(asked, [Half(), Half(lost=True)])
  assert sum(here["texts"] for here in written["lengths"]) == 200
  first, lost = written["by_length"]
  assert lost is None and first[0]["bleu"] > 99 > 20 > first[-1]["bleu"]

  drawn = {name: written[name] for name in ("lengths", "by_length")}
  found = findings_of(tmp_path, {"half": drawn, "before": {"by_length": None}})
  picture = generations.length_scores(found, "g")
  rows = picture.files["csv"].decode().splitlines()
  assert len(rows) == 1 + len(written["lengths"]) and rows[1].startswith("half,0,")
  old = findings_of(tmp_path / "old", {"before": {"floors": {}}})
  assert generations.length_scores(old, "g") is None


def findings_of(folder, written):
  """Returns the findings of a sweep whose runs have these records of texts."""
  runs = tuple(
    load.LoadedRun(f"id{n}", label, "g", "finished", result={"written": record})
    for n, (label, record) in enumerate(written.items())
  )
  sweep = load.Sweep(folder, "", "", "", "", ("g",), runs)
  return Findings(sweep, ())
