"""Texts that a trained run writes: scored, kept, drawn, and read back in a report."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import sacrebleu
from fake_sweep import QUICKSTART, edit, read_page, write_sweep
from undrawn import leave_out

from experiments import load_run
from experiments.configs import base
from experiments.evaluate import scoring
from experiments.evaluate.scoring import Scoring
from experiments.reporting import comparisons, score_tables
from experiments.reporting.page import write_report
from experiments.runner import train
from experiments.runner.build import build
from experiments.setup.validate import flatten, resolve
from transformer_jax.data.base import GenerationSet
from transformer_jax.data.tokenizers import tokenizers
from transformer_jax.evaluation import generation_eval, maps
from transformer_jax.evaluation.beam import Beam
from transformer_jax.evaluation.generation_eval import GenerationEval
from transformer_jax.evaluation.translator import Translator
from transformer_jax.training import sharding
from transformer_jax.training.json_files import write_json

WORDS = "eins zwei drei vier sechs sieben".split()
TINY = {
  "task": "translation('numbers.tsv', tokenizer='char(size=40)', max_length=15)",
  "seeds": (3, 5),
  "model.kind": "encoder_decoder",
  **{"model.width": 16, "model.heads": 2, "model.layers": 1, "model.feedforward": 16},
  **{"train.length": 16, "train.batch_size": 8, "train.steps": 2},
  "model.core": "dense",
  **{
    "train.steps_per_dispatch": 2,
    "train.checkpoint_every": 2,
    "train.keep_checkpoints": 1,
  },
  **{"evaluate.lengths": (1,), "evaluate.examples": 4, "evaluate.batch_size": 4},
  **{"evaluate.texts": 5, "evaluate.texts_per_step": 4, "evaluate.beam": 2},
}
BAHDANAU = {
  "model.family": "recurrent(cell='gru', link='bahdanau')",
  **{"model.attention": "additive", "model.position": "none"},
  "model.feedforward": 256,  # the default: it has none
}


RANDOM = np.random.default_rng(0)
LEARNED = {"model.position": "learned"}


def finished(folder, changes):
  """Returns the folder of a run of two steps and what its result.json would hold."""
  lines = [f"{n} {n % 6}\t{WORDS[n % 6]} {WORDS[n // 6 % 6]}" for n in range(200)]
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(folder)
    (folder / "numbers.tsv").write_text("\n".join(lines))
    config = resolve(base.get_config(), TINY | changes)
    run = folder / "runs" / "one"
    run.mkdir(parents=True)
    return run, train.run(config, run, "tiny", stop=False)


@pytest.fixture(scope="module")
def transformer(tmp_path_factory):
  return finished(tmp_path_factory.mktemp("sweep"), LEARNED)


@pytest.fixture(scope="module")
def bahdanau(tmp_path_factory):
  return finished(tmp_path_factory.mktemp("sweep"), BAHDANAU)


@pytest.fixture(
  params=["transformer", pytest.param("bahdanau", marks=pytest.mark.slow)]
)
def ran(request):
  return request.getfixturevalue(request.param)


def test_the_score_is_that_of_the_kept_texts(ran):
  folder, result = ran
  rows = json.loads((folder / "translations.json").read_text())
  assert len(rows) == 5 and result["written"]["texts"] == 5
  assert [m["name"] for m in result["measures"]] == ["bleu", "chrf", "accuracy"]
  references = [[row["reference"] for row in rows]]
  for seed in (3, 5):
    texts = [row[f"seed {seed}"] for row in rows]
    for name, score in (("bleu", sacrebleu.BLEU()), ("chrf", sacrebleu.CHRF())):
      (found,) = [
        x["value"]
        for x in result["scores"]
        if (x["seed"], x["measure"], x["length"]) == (seed, name, 16)
      ]
      assert found == score.corpus_score(texts, references).score
  assert {"copy", "nearest"} == {*result["written"]["floors"]}
  assert result["written"]["floors"]["nearest"]["chrf"] > 20  # another number's words
  floor = max(own["bleu"] for own in result["written"]["floors"].values())
  scores = [own["bleu"] for own in result["written"]["scores"]]
  assert result["written"]["below"] == [score <= floor for score in scores]
  kept = {(row["source"], row["reference"], row["seed 3"]) for row in rows}
  assert {*map(tuple, result["written"]["samples"])} == kept
  assert not [path for path in (folder / "checkpoints").iterdir() if path.name == "0"]


def test_texts_of_another_split_are_generated_and_scored(transformer, monkeypatch):
  folder, result = transformer
  monkeypatch.chdir(folder.parents[1])
  config = resolve(base.get_config(), TINY | LEARNED)
  write_json(folder / "config.json", flatten(config))
  write_json(folder / "result.json", result)
  write_json(folder / "status.json", {"state": "finished"})
  run = load_run(folder)
  again = folder / "evaluations" / "x"
  again.mkdir(parents=True)
  found, _ = scoring.score(run, Scoring(split="validation"), again)
  assert [m["name"] for m in found["measures"]] == ["bleu", "chrf", "accuracy"]
  rows = json.loads((again / "translations.json").read_text())
  kept = json.loads((folder / "translations.json").read_text())
  assert not {x["source"] for x in rows} & {x["source"] for x in kept}
  references = [[row["reference"] for row in rows]]
  bleu = sacrebleu.BLEU().corpus_score([row["seed 5"] for row in rows], references)
  scores = {(x["seed"], x["measure"]): x["value"] for x in found["scores"]}
  assert scores[5, "bleu"] == bleu.score
  # Other examples change no text.
  few, _ = scoring.score(run, Scoring(examples=2), again)
  assert "written" not in few and [m["name"] for m in few["measures"]] == ["accuracy"]


class Echo:
  """A translator that repeats what it reads and remembers in which order."""

  def __init__(self, known=None):
    self.read, self.known = [], known or {}

  def all(self, texts, how, rows):
    self.read += texts
    yield from (self.known.get(text, text) for text in texts)


def test_texts_of_like_length_go_together_and_come_back_in_order():
  sources = ["a longer text", "b", "the longest text of all", "cc"]
  tokenizer = tokenizers.build("byte").train([])
  asked, echo = GenerationSet(sources, sources, [], tokenizer), Echo()
  assert GenerationEval(Beam(1), 4, 2).write(asked, echo) == sources
  assert echo.read == sorted(sources, key=len)


def test_a_score_is_recorded_beside_what_is_no_translation(monkeypatch):
  monkeypatch.setattr(generation_eval, "attention_map", lambda *_: {})
  sources = ["the cat sat on the mat", "a dog ran in the park today"]
  references = ["the cat lay on the mat", "a dog ran in a park today"]
  tokenizer, some = tokenizers.build("byte").train([]), [("a dog", "ein Hund")]
  right = Echo(dict(zip(sources, references, strict=True)))
  asked = GenerationSet(sources, references, some, tokenizer)
  found = GenerationEval(Beam(1), 2, 2).record(asked, [Echo(), right])
  bleu = [sacrebleu.corpus_bleu(x, [references]).score for x in (sources, references)]
  assert [own["bleu"] for own in found["scores"]] == bleu and 10 < bleu[0] < 90
  assert found["floors"]["copy"] == found["scores"][0]
  assert found["below"] == [True, False] and found["all"] == [sources, references]


def test_the_map_has_a_row_for_each_piece(ran):
  _, result = ran
  drawn = result["written"]["map"]
  weight_LM = np.array(drawn["weights_LM"])
  assert weight_LM.shape == (len(drawn["found"]), len(drawn["source"]))
  np.testing.assert_allclose(weight_LM.sum(axis=1), 1.0, atol=1e-3)  # four digits kept
  assert weight_LM.std(axis=1).max() > 0 and drawn["source"][-1] == "</s>"


def translator(changes, draw):
  """Returns a translator whose parameters are drawn by their shapes."""
  trainer = build(resolve(base.get_config(), TINY | changes)).trainer
  params = jax.tree.map(lambda x: draw(x.shape).astype(x.dtype), trainer.shapes.params)
  tokenizer = tokenizers.build("char(size=40)").train(["0 1 2", *WORDS])
  return Translator(trainer.model, params, tokenizer, 16)


@pytest.mark.parametrize("scan", [False, True])
def test_a_model_that_diverged_has_no_map(transformer, scan):
  lost = translator(
    LEARNED | {"model.scan": scan}, lambda shape: np.full(shape, np.nan)
  )
  # Texts as long, on the mesh of the run, need no new programs.
  mesh, drawn = sharding.make_mesh(), transformer[1]["written"]["map"]
  lost = dataclasses.replace(lost, params=sharding.whole(mesh, lost.params))
  source, found = "1" * (len(drawn["source"]) - 1), "e" * (len(drawn["found"]) - 1)
  with jax.set_mesh(mesh):
    assert maps.attention_map(lost, source, found) == {}


@pytest.mark.slow  # test_activations has its weights, and maps are made of them above
def test_a_recurrent_model_has_a_map():
  found = maps.attention_map(
    translator(BAHDANAU, lambda shape: RANDOM.normal(size=shape)), "1 2", "ei"
  )
  weight_LM = np.array(found["weights_LM"])
  assert (weight_LM.shape, found["found"]) == ((3, 4), ["e", "i", "</s>"])
  np.testing.assert_allclose(weight_LM.sum(axis=1), 1.0, atol=1e-3)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
  """A finished sweep whose variants wrote texts; one is below the floor."""
  text = {"text": QUICKSTART["text"]}
  workdir = write_sweep(tmp_path_factory.mktemp("written"), text)
  for n, label in enumerate(text["text"][1]):
    below = label == "none"
    drawn = {"source": ["a", "</s>"], "found": ["b", "</s>"]}
    facts = {
      "texts": 927,
      "search": "beam 4, GNMT(alpha=0.6)",
      "signatures": ["nrefs:1|bleu", "nrefs:1|chrf"],
      "floors": {
        "copy": {"bleu": 4.4, "chrf": 20.2},
        "nearest": {"bleu": 17.3, "chrf": 37.5},
      },
      "margins": [[1.1, 0.9], [1.4, 0.9], [None, 0.9]],
      "below": [False, below, False],
      "samples": [["a <b>", "ein b", f"by {label}"]],
      "map": drawn | {"weights_LM": [[0.9, 0.1], [0.2, 0.8]]}
      if label == "rope"
      else {},
    }
    edit(workdir, f"text-{n:02d}", written=facts)
  with pytest.MonkeyPatch.context() as patch:
    leave_out(patch, ["map_"])
    write_report(workdir)
  return workdir


def test_the_report_says_what_a_score_must_beat(written):
  found = comparisons.find(written)
  notes = " ".join(score_tables.main_table(found, "text").notes)
  assert "bleu copy 4.4 and nearest 17.3; chrf copy 20.2 and nearest 37.5" in notes
  assert "is no translation, in one seed or more: none." in notes
  assert "927 texts by beam 4" in notes and "by ± 1.1 to 1.4" in notes
  page = read_page(written)
  rows = page.tables["samples_text"]
  assert ["1. source", "a <b>"] in rows and ["reference", "ein b"] in rows
  assert ["t5", "by t5"] in rows
  assert (written / "map_text.png").read_bytes()[:4] == b"\x89PNG"
  assert "| 1. source | a <b> |" in (written / "tables.md").read_text()


def test_a_sweep_that_wrote_nothing_says_nothing(tmp_path, monkeypatch):
  leave_out(monkeypatch)
  headline, variants = QUICKSTART["text"]
  two = {name: variants[name] for name in ("none", "rope")}
  workdir = write_sweep(tmp_path, {"text": (headline, two)})
  write_report(workdir)
  assert "samples_text" not in read_page(workdir).tables
  assert not (workdir / "map_text.png").exists()
