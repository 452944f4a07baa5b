"""Scores of translations: sacreBLEU's numbers, floors, averages, bits and perplexity.

The numbers lie in `third_party/sacrebleu/`; `ORIGIN.md` there says how they were made.
"""

import dataclasses
import json
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer_jax.evaluation import text_scores
from transformer_jax.evaluation.average import average
from transformer_jax.training.checkpoint import CheckpointError, Keeper
from transformer_jax.training.step import State

FOLDER = pathlib.Path(__file__).parents[2] / "third_party" / "sacrebleu"
RECORDED = json.loads((FOLDER / "scores.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("place", range(len(RECORDED["sets"])))
def test_scores_are_those_that_were_recorded(place):
  one = RECORDED["sets"][place]
  texts, wanted = (one["hyp"], *one["refs"]), one["results"]
  for name, settings in RECORDED["settings"].items():
    got = text_scores.bleu(*texts, **settings).value
    np.testing.assert_allclose(got, wanted[name], rtol=1e-9, err_msg=name)
  for name, words in (("chrf2", 0), ("chrf++", 2)):
    got = text_scores.chrf(*texts, word_order=words).value
    np.testing.assert_allclose(got, wanted[name], rtol=1e-9, err_msg=name)


def test_a_score_has_a_signature_and_an_interval():
  found, truth = ["a cat sat on the mat ."] * 3, ["the cat sat on the mat ."] * 3
  got = text_scores.bleu(found, truth, tokenize="char")
  assert got.signature.startswith("nrefs:1|case:mixed|eff:no|tok:char|smooth:exp|")
  assert got.margin is None and str(got) == f"BLEU {got.value:.1f}"
  different = ["a b c d e f", "a b x d e f", "y b x z e f"] * 5
  spread = text_scores.bleu(different, ["a b c d e f"] * 15, resamples=200)
  assert 1 < spread.margin < 40 and f" ± {spread.margin:.1f}" in str(spread)
  assert "bs:200" in spread.signature
  assert text_scores.chrf(found, truth, word_order=2).name == "chrF++"


TRAIN = [
  ("Open the file menu", "Öffnen Sie das Menü Datei"),
  ("Close the file", "Schließen Sie die Datei"),
  ("Print all the pages now", "Alle Seiten jetzt drucken"),
  ("Save the file", "Speichern Sie die Datei"),
]


def nearest(source):
  """The target of the nearest source, by the words of `nearest_targets`, in loops."""
  bag = lambda text: {*text.lower().split()}
  weight = lambda word: math.log(
    len(TRAIN) / max(1, sum(word in bag(s) for s, _ in TRAIN))
  )
  norm = lambda words: math.sqrt(sum(weight(w) ** 2 for w in words)) or 1e-9
  likeness = lambda words: (
    sum(weight(w) ** 2 for w in words & bag(source)) / norm(words)
  )
  return max(TRAIN, key=lambda pair: likeness(bag(pair[0])))[1]


def test_the_nearest_source_is_found_by_its_rare_words():
  asked = ["Close the file menu", "print the file", "Please save now", "the menu file"]
  got = text_scores.nearest_targets(TRAIN, asked)
  assert got == [nearest(source) for source in asked]
  assert got[1:3] == [TRAIN[2][1], TRAIN[3][1]]


@pytest.mark.parametrize(
  ("wrong", "says"),
  [
    (lambda: text_scores.bleu([], []), "at least one translation"),
    (lambda: text_scores.bleu(["a"]), "and a reference"),
    (lambda: text_scores.bleu(["a", "b"], ["a"]), "2 translations and 1 references"),
    (lambda: text_scores.bleu(["a"], "a"), "give a list with one"),
    (lambda: text_scores.scores(["a"], []), "1 translations and 0 references"),
    (lambda: text_scores.nearest_targets([], ["a"]), "at least one"),
    (lambda: text_scores.bits_per_byte(1.0, 0), "give some text"),
    (lambda: text_scores.perplexity(1.0, 0), "give some text"),
  ],
)
def test_what_cannot_be_scored_is_refused(wrong, says):
  with pytest.raises(ValueError, match=says):
    wrong()


def test_bits_per_byte_and_perplexity_of_a_uniform_guess():
  # 12 tokens of 1000 kinds, guessed blindly, spell 30 bytes.
  nats = 12 * math.log(1000)
  assert text_scores.perplexity(nats, 12) == pytest.approx(1000)
  assert text_scores.bits_per_byte(nats, 30) == pytest.approx(12 * math.log2(1000) / 30)
  assert text_scores.perplexity(1e6, 1) == math.inf


def test_the_mean_of_the_last_checkpoints(tmp_path):
  said = []
  random = np.random.default_rng(0)
  draw = lambda n: {"w_DF": jnp.asarray(random.normal(size=(2, 3)), jnp.float32) * n}
  states = [
    State(jnp.int32(n), draw(n), {"mu": jnp.float32(n)}, jax.random.key_data(key))
    for n, key in enumerate(jax.random.split(jax.random.key(0), 4))
  ]
  with Keeper(tmp_path, keep=3, say=said.append) as keeper:
    for n, state in enumerate(states):
      keeper.save(n, state, {"step": n})
    mean = average(keeper, states[0], 3)
    expected = np.mean([state.params["w_DF"] for state in states[1:]], axis=0)
    np.testing.assert_allclose(mean["w_DF"], expected, rtol=1e-6)
    one = average(keeper, states[0], 1)
    np.testing.assert_array_equal(one["w_DF"], states[3].params["w_DF"])
    early = average(keeper, states[0], 1, step=2)
    np.testing.assert_array_equal(early["w_DF"], states[2].params["w_DF"])
    pair = average(keeper, states[0], 2, step=2)
    expected = np.mean([state.params["w_DF"] for state in states[1:3]], axis=0)
    np.testing.assert_allclose(pair["w_DF"], expected, rtol=1e-6)
    with pytest.raises(CheckpointError, match="step 0 is there; there are 1, 2, 3"):
      average(keeper, states[0], 1, step=0)
    for last in (0, 4):
      with pytest.raises(CheckpointError, match="average 1 or more of those"):
        average(keeper, states[0], last)
    other = dataclasses.replace(states[0], params={"w_DF": jnp.zeros((2, 4))})
    with pytest.raises(CheckpointError, match="another model"):
      average(keeper, other, 2)
  assert not said


def test_a_score_that_cannot_be_resampled_has_no_interval():
  found, references = ["", "", "ab"], ["xy", "uv", "ac"]
  score = text_scores.chrf(found, references, resamples=50)
  assert (
    score.margin is None and score.value == text_scores.chrf(found, references).value
  )
