"""Depo: the authors' texts, an oracle, distributions, and its measure of answers."""

import collections
import functools
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer_jax.data.base import tasks
from transformer_jax.data.tasks.algorithmic.base import FIRST, PAD, SEPARATOR, START
from transformer_jax.data.tasks.algorithmic.ragged import draw_length
from transformer_jax.data.tasks.algorithmic.token_words import TokenWords
from transformer_jax.evaluation.measures import Outputs, measures, name_of
from transformer_jax.numpy_interpreter import evaluate
from transformer_jax.spec import SpecError

RECORDED = pathlib.Path(__file__).parents[2] / "third_party" / "physics_lm4"
CASES = {
  "depo1_small": "depo(hops=4)",
  "depo2_small": "depo(hops=4, letters=3, shortest=5, longest=7)",
  "depo1_qa": "depo(hops=4)",
}
SMALL = "depo(hops=6, questions=3, letters=3, separated=True)"


@functools.cache
def recorded(case):
  """Returns the texts of the authors and their labels, without padding."""
  with np.load(RECORDED / "depo.npz", allow_pickle=False) as file:
    pairs = zip(file[f"{case}/tokens"], file[f"{case}/label"], strict=True)
    return [(x[x >= 0].tolist(), y[x >= 0].tolist()) for x, y in pairs]


def numbers_of(task):
  """Returns {token: number of the authors}."""
  marks = {START: 9999, SEPARATOR: 9500}
  marks |= {FIRST + n: n + 1 for n in range(2 * task.letters)}
  first = FIRST + 2 * task.letters
  marks |= {first + k - 1: 9000 + k for k in range(1, task.hops + 1)}
  return marks | {first + task.hops: 9700}


def theirs(task, tokens):
  return [numbers_of(task)[token] for token in tokens]


def ours(task, text):
  token_of = {number: token for token, number in numbers_of(task).items()}
  return [token_of[number] for number in text]


def read(text, letters):
  """Returns {word: its successor} and [k, word, 9500, answer] of each question.

  text   in the numbers of the authors, of whom the last letters are above `letters`
  """
  items, word = [], ()
  for number in text[1:]:
    if number > 9000:
      assert not word
      items.append(number)
      continue
    word = (*word, number)
    if number > letters:
      items.append(word)
      word = ()
  assert text[0] == 9999 and not word
  items = [item for item in items if item != 9700]
  first = next(n for n, item in enumerate(items) if isinstance(item, int))
  edges = dict(zip(items[:first:2], items[1:first:2], strict=True))
  return edges, [items[n : n + 4] for n in range(first, len(items), 4)]


def check(text, task):
  """Asserts that a text is right; returns its number of words and all k."""
  edges, questions = read(text, task.letters)
  first = word = next(iter(edges))
  cycle = {first}
  while (word := edges[word]) != first:
    cycle.add(word)
  assert len(cycle) == len(edges)
  assert all(task.shortest <= len(word) <= task.longest for word in cycle)
  assert len({asked for _, asked, _, _ in questions}) == len(questions)
  assert len(questions) == min(len(edges), task.questions)
  for k, word, separator, answer in questions:
    for _ in range(k - 9000):
      word = edges[word]
    assert separator == 9500 and answer == word
  return len(edges), [k - 9000 for k, *_ in questions]


def rows(batch):
  """Yields the tokens of each text, and which of them count."""
  for input_L, target_L, weight_L in zip(
    batch.input_BL, batch.target_BL, batch.weight_BL, strict=True
  ):
    token_L, counts_L = np.append(input_L, target_L[-1]), np.append(0, weight_L) > 0
    yield token_L[token_L != PAD].tolist(), counts_L[token_L != PAD].tolist()


@pytest.mark.parametrize("case", CASES)
def test_texts_of_the_authors_are_right(case):
  task = tasks.build(CASES[case])
  for text, label in recorded(case):
    size, hops = check(text, task)
    assert 3 <= size <= 10 and {*hops} <= {1, 2, 3, 4}
    if case == "depo1_qa":
      assert size == 8 and {*hops} <= {*task.scored_hops}
    tokens = ours(task, text)
    assert task.accepts(tokens) and theirs(task, tokens) == text
    # Theirs counts the separator too, which the word before it tells.
    wanted = [y == 1 and x != 9500 for x, y in zip(text, label, strict=True)]
    assert wanted == counted(task, tokens)


def counted(task, tokens):
  """Returns which tokens are of answers: those after a separator, of one word."""
  found, inside = [], False
  for token in tokens:
    found.append(inside)
    last = FIRST + task.letters <= token < FIRST + 2 * task.letters
    inside = token == SEPARATOR or (inside and not last)
  return found


@pytest.mark.parametrize(
  "spec", ["depo", SMALL, "depo(hops=4, letters=3, shortest=5, longest=7)"]
)
def test_texts_are_right(spec):
  task = tasks.build(spec)
  scored = evaluate(lambda: task.score((), jax.random.key(0), 8, np.int32(5), 7))
  trained = evaluate(lambda: task.batch((), jax.random.key(0), 8, 7))
  for batch, sizes, hops in (
    (scored, {5}, {*task.scored_hops}),
    (trained, {3, 4, 5, 6, 7}, {*range(1, task.hops + 1)}),
  ):
    assert batch.input_BL.shape == (8, task.tokens(7))
    assert np.max(batch.target_BL) < task.vocabulary
    found = []
    for tokens, counts in rows(batch):
      size, asked = check(theirs(task, tokens), task)
      assert size in sizes and {*asked} <= hops and task.accepts(tokens)
      assert counts == counted(task, tokens)
      found += asked
    assert len({*found}) > len(hops) / 2
  real_BL = np.asarray(scored.at.real_BL)
  np.testing.assert_array_equal(real_BL, np.asarray(scored.input_BL) != PAD)
  assert real_BL[:, -1].all()


def test_a_text_is_the_same_in_every_bucket_and_in_every_batch():
  task = tasks.build(SMALL)

  @functools.partial(jax.jit, static_argnums=(0, 1))
  def draw(rows, bucket):
    return task.score((), jax.random.key(3), rows, np.int32(4), bucket)

  small, large = draw(2, 4), draw(3, 6)
  for field in ("input_BL", "target_BL", "weight_BL"):
    want_BL, got_BL = getattr(small, field), getattr(large, field)
    size = want_BL.shape[1]
    np.testing.assert_array_equal(got_BL[:2, -size:], want_BL, err_msg=field)


def test_wrong_texts_are_not_accepted():
  task = tasks.build("depo(hops=4, letters=2)")
  a, b, c = [6], [7], [4, 6]
  cycle, ask = [1, *b, *c, *a, *b, *c, *a], [9, *a, 2]  # two hops from a
  assert task.accepts([*cycle, *ask, *c])
  for tokens in (
    [],
    cycle,  # no question
    [*cycle, *ask, *b],
    [*cycle, *ask, *c, *c],
    [*cycle, *ask],
    [*cycle, *ask, 4],  # half a word
    [*cycle, 9, 5, 7, 2, *c],  # asks for another word
    [*cycle, 9, *a, *c],
    [*cycle[1:], *ask, *c],
    [1, *a, *b, *b, *a, *c, *c, *ask, *a],  # two cycles
    [1, *a, *b, *b, *a, *a, *b, *ask, *a],
    [1, *a, *b, *b, *ask, *a],
  ):
    assert not task.accepts(tokens)


def test_lengths_have_the_published_distribution():
  keys = jax.random.split(jax.random.key(0), 4000)
  found = collections.Counter(np.asarray(jax.vmap(lambda k: draw_length(k, 9))(keys)))
  weights = {n: 1 / (n + 3) for n in range(3, 10)}
  assert {*found} == {*weights}
  for n, weight in weights.items():
    share = weight / sum(weights.values())
    error = (share * (1 - share) / 4000) ** 0.5
    assert abs(found[n] / 4000 - share) < 4 * error
  assert {int(draw_length(key, 2)) for key in keys[:9]} == {2}


def test_words_have_the_distribution_of_draws_that_are_repeated():
  words = TokenWords(letters=2, shortest=1, longest=2)

  def drawn(key):
    return words.draw(key, 3)

  keys = jax.random.split(jax.random.key(1), 6000)
  first_N2K = np.asarray(jax.vmap(drawn)(keys))[:, :2]
  one_letter_N2 = first_N2K[..., 1] == PAD
  # Each of two words of a letter has 1/4, each of four others 1/8.
  assert abs(one_letter_N2[:, 0].mean() - 1 / 2) < 4 * 0.5 / 6000**0.5
  # Then 1/3 of one letter after one of them, and 4/7 after another word.
  second = 1 / 2 * 1 / 3 + 1 / 2 * 4 / 7
  assert abs(one_letter_N2[:, 1].mean() - second) < 4 * 0.5 / 6000**0.5
  different = (first_N2K[:, 0] != first_N2K[:, 1]).any(axis=1)
  assert different.all()


def test_answers_are_counted_whole_and_by_hops():
  answer_BL = jnp.array([[0, 1, 1, 2, 2, 0, 3], [0, 0, 1, 1, 0, 2, 2]])
  hops_BL = jnp.array([[0, 4, 4, 1, 1, 0, 4], [0, 0, 1, 1, 0, 1, 1]])
  target_BL = jnp.array([[5, 1, 2, 3, 0, 1, 1], [1, 2, 3, 4, 5, 0, 1]])
  guess_BL = target_BL.at[0, 2].set(5).at[0, 0].set(0).at[1, 3].set(0).at[1, 2].set(0)
  at = functools.partial(dict, answer_BL=answer_BL, hops_BL=hops_BL)
  reads = None, type("At", (), {"data": at()}), None, None
  outputs = Outputs(
    jax.nn.one_hot(guess_BL, 6),
    target_BL,
    (answer_BL > 0) * 1.0,
    None,
    None,
    None,
    reads,
  )
  for spec, wanted in (
    ("answers", [2 / 3, 1 / 2]),
    ("answers('hops', 4)", [1 / 2, np.nan]),
    ("answers('hops', 1)", [1, 1 / 2]),
    ("answers('hops', 2)", [np.nan, np.nan]),
  ):
    np.testing.assert_allclose(measures.build(spec).score(outputs), wanted, rtol=1e-6)
  with pytest.raises(
    SpecError, match="no ids named 'depth'.*answer, hops.*exact_match"
  ):
    measures.build("answers('depth', 4)").score(outputs)


def test_measures_are_by_hops():
  task = tasks.build("depo(hops=6)")
  hops = [f"answers('hops', {k})" for k in (1, 2, 4, 6)]
  assert task.measures == ("answers", *hops, "accuracy")
  assert [name_of(measures.build(spec)) for spec in task.measures[:2]] == [
    "answers",
    "answers(of='hops', value=1)",
  ]
  assert task.chance("answers(of='hops', value=4)", 20) == 1 / 20
  assert task.chance("accuracy", 20) is None
  assert tasks.build("depo(hops=32)").scored_hops == (1, 2, 4, 8, 16, 24, 32)


@pytest.mark.parametrize(
  ("spec", "says"),
  [
    ("depo(hops=0)", "depo: hops is 0; it must be at least 1"),
    ("depo(questions=0)", "depo: questions is 0"),
    ("depo(letters=-1)", "depo: letters is -1"),
    ("depo(shortest=3)", "shortest=3 and at most longest=2 letters; raise longest"),
    ("depo(longest=9)", "letters=50 and longest=9 make more than 100,000 words"),
    ("depo(longest=10000000)", "make more than 100,000 words"),
  ],
)
def test_impossible_arguments_are_refused(spec, says):
  with pytest.raises(SpecError, match=re.escape(says)):
    tasks.build(spec)


def test_more_nodes_than_words_are_refused():
  task = tasks.build("depo(letters=2)")
  assert task.tokens(6)
  with pytest.raises(SpecError, match="7 nodes need as many words, and there are 6"):
    task.tokens(7)
