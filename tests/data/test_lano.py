"""Lano: the authors' sentences, all sentences of a small grammar, texts and entropy."""

import collections
import functools
import itertools
import math
import pathlib
import random
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer_jax.data.base import tasks
from transformer_jax.data.tasks.algorithmic.base import END, FIRST, PAD, START
from transformer_jax.data.tasks.algorithmic.lano import grammar_of, grammars
from transformer_jax.data.tasks.algorithmic.layered_grammar import LayeredGrammar
from transformer_jax.numpy_interpreter import evaluate
from transformer_jax.spec import SpecError

RECORDED = pathlib.Path(__file__).parents[2] / "third_party" / "physics_lm4"
SEEDS = 7711, 1, 2
ROOT = (((0, 1), (1, 1, 0)),)
SMALL = LayeredGrammar((ROOT, (((0,), (1, 0)), ((0, 1), (1,), (0, 0, 0)))))
BYTES = 1e-12  # sums of a few hundred float64 products


def recorded(name):
  """Returns the sentences of the authors by seed, terminals from 0."""
  with np.load(RECORDED / "lano.npz", allow_pickle=False) as file:
    token_SL = file[f"{name}/tokens"]
  return {
    seed: (x[x >= 0] - 1).tolist() for seed, x in zip(SEEDS, token_SL, strict=True)
  }


def derive(grammar, choose, depth=0, symbol=0):
  """Returns a sentence and its probability; `choose` draws one of so many rules."""
  if depth == len(grammar.levels):
    return [symbol], 1.0
  rules = grammar.levels[depth][symbol]
  parts = [derive(grammar, choose, depth + 1, s) for s in rules[choose(len(rules))]]
  sentence = [token for part, _ in parts for token in part]
  return sentence, math.prod(p for _, p in parts) / len(rules)


def sentences(grammar, depth=0, symbol=0):
  """Returns {sentence: probability} of all sentences of a symbol."""
  if depth == len(grammar.levels):
    return {(symbol,): 1.0}
  found, rules = collections.Counter(), grammar.levels[depth][symbol]
  for rule in rules:
    parts = [sentences(grammar, depth + 1, child).items() for child in rule]
    for chosen in itertools.product(*parts):
      sentence = sum((part for part, _ in chosen), ())
      found[sentence] += math.prod(p for _, p in chosen) / len(rules)
  return found


@pytest.mark.parametrize("name", ["cfg3f", "cfg3b"])
def test_sentences_of_the_authors_are_derived_and_accepted(name):
  task, grammar = tasks.build(f"lano({name!r})"), grammar_of(name)
  for seed, sentence in recorded(name).items():
    rng = random.Random(seed)
    derived, probability = derive(grammar, lambda n, rng=rng: rng.randint(0, n - 1))
    assert derived == sentence
    # A sentence may have other derivations too.
    assert grammar.log_probability(sentence) >= math.log(probability) - 1e-9
    text = [START, *(FIRST + token for token in sentence), END]
    assert task.accepts(text)
    other = text[:9] + [FIRST + (text[9] - FIRST + 1) % 3] + text[10:]
    for wrong in (other, text[:-1], text[1:], text[:-2] + [END], [*text, END], []):
      assert not task.accepts(wrong)


def test_probabilities_are_those_of_all_sentences():
  known = sentences(SMALL)
  assert sum(known.values()) == pytest.approx(1)
  sizes = [len(sentence) for sentence in known]
  assert (SMALL.shortest, SMALL.longest) == (min(sizes), max(sizes))
  for sentence, probability in known.items():
    found = math.exp(SMALL.log_probability(sentence))
    assert found == pytest.approx(probability, rel=BYTES)
  for wrong in ((), (0,), (0, 2), (1, 1, 1, 1)):
    assert (wrong in known) == (SMALL.log_probability(wrong) > -math.inf)


def test_next_tokens_are_those_of_all_sentences():
  known = sentences(SMALL)
  for sentence in [*known][:6]:
    found = SMALL.next_tokens(sentence)
    for n in range(len(sentence) + 1):
      begun = {s: p for s, p in known.items() if s[:n] == sentence[:n]}
      wanted = np.zeros(3)
      for other, p in begun.items():
        wanted[other[n] if len(other) > n else -1] += p
      np.testing.assert_allclose(found[n], wanted / wanted.sum(), rtol=1e-9)
  assert not SMALL.next_tokens([1, 1, 1, 1, 1])[5].any()  # begins no sentence


def test_next_tokens_have_the_probability_of_a_long_sentence():
  grammar = grammar_of("cfg3f")
  for sentence in recorded("cfg3f").values():
    p_LV = grammar.next_tokens(sentence)
    np.testing.assert_allclose(p_LV.sum(axis=1), 1, rtol=1e-9)
    chosen = np.log(p_LV[np.arange(len(sentence) + 1), [*sentence, -1]]).sum()
    assert chosen == pytest.approx(grammar.log_probability(sentence), rel=1e-9)


def test_entropy_and_length_are_those_of_all_sentences():
  # No sentence of this grammar has two derivations.
  grammar = LayeredGrammar((ROOT, (((0,), (3, 0)), ((2,), (2, 1)))))
  known = sentences(grammar)
  nats, length = grammar.expected
  assert nats == pytest.approx(-sum(p * math.log(p) for p in known.values()))
  assert length == pytest.approx(sum(p * len(s) for s, p in known.items()))
  task = tasks.build("lano")
  assert task.entropy == pytest.approx(186.22 / 250.9, abs=1e-3)


def test_sentences_are_drawn_with_their_probabilities():
  draws = 3000
  keys = jax.random.split(jax.random.key(0), draws)
  token_BT = np.asarray(jax.jit(jax.vmap(SMALL.draw))(keys))
  assert token_BT.shape[1] == SMALL.longest
  found = collections.Counter(tuple(x[x >= 0].tolist()) for x in token_BT)
  known = sentences(SMALL)
  assert {*found} <= {*known}
  for sentence, p in known.items():
    assert abs(found[sentence] / draws - p) < 5 * (p * (1 - p) / draws) ** 0.5


def texts(batch):
  """Yields the tokens of each text, and the number of them that count."""
  for input_L, target_L, weight_L in zip(
    batch.input_BL, batch.target_BL, batch.weight_BL, strict=True
  ):
    token_L = np.append(input_L, target_L[-1])
    yield token_L[token_L != PAD].tolist(), int(np.sum(weight_L))


def test_texts_are_sentences_one_after_another():
  task, grammar = tasks.build("lano('cfg3b')"), grammar_of("cfg3b")
  batch = evaluate(lambda: task.batch((), jax.random.key(0), 3, 700))
  assert batch.input_BL.shape == (3, 700) == (3, task.tokens(700))
  for text, counted in texts(batch):
    assert len(text) == 701 and counted == 700 and text[0] == START
    ends = [n for n, token in enumerate(text) if token == END]
    assert ends and text.count(START) == 1
    for start, end in itertools.pairwise([0, *ends]):
      assert task.accepts([START, *text[start + 1 : end], END])
    begun = [token - FIRST for token in text[ends[-1] + 1 :]]
    assert grammar.next_tokens(begun)[-1].sum() == pytest.approx(1)


def test_scored_texts_are_the_same_in_every_bucket():
  task = tasks.build("lano('cfg3b')")
  trained = evaluate(lambda: task.batch((), jax.random.key(0), 2, 30))
  assert (np.asarray(trained.weight_BL) == 1).all()
  draw = jax.jit(
    functools.partial(task.score, (), jax.random.key(0), 2), static_argnums=1
  )
  small, large = draw(jnp.int32(20), 20), draw(jnp.int32(20), 30)
  for field in ("input_BL", "target_BL", "weight_BL"):
    got_BL = np.asarray(getattr(large, field))
    np.testing.assert_array_equal(got_BL[:, -20:], getattr(small, field))
    assert field == "target_BL" or not got_BL[:, :-20].any()
  assert large.at.real_BL.sum() == 20 == small.weight_BL[0].sum()


def test_models_continue_prompts_within_the_trained_length():
  task = tasks.build("lano('cfg3b', prompt=5)")
  prompt_BL, text_BL = jax.jit(task.prompts, static_argnums=(0, 1))(512, 3)
  assert prompt_BL.shape == (3, 6) and (prompt_BL[:, 0] == START).all()
  np.testing.assert_array_equal(prompt_BL, text_BL[:, :6])
  assert all(task.accepts(x[x != PAD].tolist()) for x in np.asarray(text_BL))
  assert task.answer_size(512) == 432 + 1 - 5 and task.answer_size(100) == 95


def test_all_grammars_are_there():
  assert [*grammars()] == [f"cfg3{x}" for x in "b e1 e2 f g h i j k".split()]
  for name, grammar in grammars().items():
    assert len(grammar.levels) == (7 if name in ("cfg3j", "cfg3k") else 6)
    sentence, p = derive(grammar, random.Random(0).randrange)
    assert p > 0 and grammar.log_probability(sentence) > -math.inf
  assert grammar_of("cfg3e1").terminals == 9 and grammar_of("cfg3e2").terminals == 4
  task = tasks.build("lano")
  assert task.chance("accuracy", 9) == 1 / 4 and task.chance("loss", 9) == math.log(4)


@pytest.mark.parametrize(
  ("spec", "says"),
  [
    ("lano('cfg3c')", "grammar is 'cfg3c'. Did you mean 'cfg3"),
    ("lano(prompt=64)", "have 64 tokens or more, so write 0 to 63"),
    ("lano(prompt=-1)", "prompt is -1"),
    ("lano(temperature=-1.0)", "temperature is -1.0; write 0 or more"),
  ],
)
def test_impossible_arguments_are_refused(spec, says):
  with pytest.raises(SpecError, match=re.escape(says)):
    tasks.build(spec)
