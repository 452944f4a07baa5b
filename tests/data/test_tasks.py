"""Algorithmic tasks: right answers, one program for every length, pure in the key."""

import functools
import re

import jax
import numpy as np
import pytest
import task_oracles
import test_kazemnejad

import transformer_jax.data  # noqa: F401
from transformer_jax.data.base import tasks
from transformer_jax.data.tasks.algorithmic.base import (
  END,
  FIRST,
  PAD,
  SEPARATOR,
  START,
)
from transformer_jax.numpy_interpreter import evaluate, trace
from transformer_jax.spec import SpecError

ROWS, LONGEST = 32, 12


def add(prompt, base=10):
  plus = prompt.index(base)
  first, second = (
    functools.reduce(lambda number, digit: number * base + digit, digits)
    for digits in (prompt[:plus], prompt[plus + 1 :])
  )
  total = first + second
  return [total // base**n % base for n in reversed(range(plus + 1))]


def recall(prompt):
  pairs = dict(zip(prompt[:-1:2], prompt[1:-1:2], strict=True))
  assert len(pairs) == len(prompt) // 2, "keys must differ"
  return [pairs[prompt[-1]]]


# The answers, in plain Python: (spec, prompt -> answer, length -> size of the prompt).
ORACLES = {
  "copy": ("copy", lambda prompt: prompt, lambda n: n),
  "reverse": ("reverse(symbols=5)", lambda prompt: prompt[::-1], lambda n: n),
  "sort": ("sort(symbols=6)", sorted, lambda n: n),
  "addition": ("addition", add, lambda n: 2 * n + 1),
  "addition reversed": (
    "addition(base=3, reversed=True)",
    lambda prompt: add(prompt, 3)[::-1],
    lambda n: 2 * n + 1,
  ),
  "parity": ("parity", lambda prompt: [sum(prompt) % 2], lambda n: n),
  "recall": ("recall(keys=20, values=4)", recall, lambda n: 2 * n + 1),
}


@pytest.fixture(params=ORACLES)
def case(request):
  spec, answer, prompt_size = ORACLES[request.param]
  return tasks.build(spec), answer, prompt_size


# The contract in test_task_contract.py claims it quickly of addition.
MORE = [x if x == "sort" else pytest.param(x, marks=pytest.mark.slow) for x in ORACLES]


@functools.partial(jax.jit, static_argnums=0)
def train(task, seed=0):
  return task.batch((), jax.random.key(seed), ROWS, LONGEST)


@functools.partial(jax.jit, static_argnums=(0, 2))
def score(task, length, bucket=LONGEST):
  return task.score((), jax.random.key(0), ROWS, length, bucket)


# Interpreted, where programs and keys are not the claim: compiling is most of the cost.
@functools.cache
def drawn(task):
  """Returns a training batch."""
  return evaluate(lambda: task.batch((), jax.random.key(0), ROWS, LONGEST))


@functools.cache
def scorer(task):
  score = lambda n: task.score((), jax.random.key(0), ROWS, n, LONGEST)
  return trace(score, np.int32(0))


def scored(task, length):
  """Returns a batch that is scored at a length."""
  return scorer(task)(np.int32(length))


def read(batch, row):
  """Returns the prompt and the answer of a row, after checking marks and weights."""
  tokens = np.asarray(batch.input_BL)[row]
  targets = np.asarray(batch.target_BL)[row]
  weights = np.asarray(batch.weight_BL)[row]
  start = np.flatnonzero(tokens == START)[0]
  separator = np.flatnonzero(tokens == SEPARATOR)[0]
  end = np.flatnonzero(targets == END)[0]
  assert (tokens[:start] == PAD).all() and (targets[end + 1 :] == PAD).all()
  np.testing.assert_array_equal(tokens[start + 1 : end + 1], targets[start:end])
  prompt, answer = tokens[start + 1 : separator], targets[separator:end]
  assert (prompt >= FIRST).all() and (answer >= FIRST).all()
  counted = np.zeros_like(weights)
  counted[separator:end] = 1
  symbols = (prompt - FIRST).tolist(), (answer - FIRST).tolist()
  return *symbols, weights, counted, end


def test_every_task_has_an_oracle():
  tables = ORACLES, task_oracles.ORACLES, test_kazemnejad.ORACLES
  named = {re.split(r"\W", spec)[0] for table in tables for spec in table}
  adapters = {"pairs", "prefixed", "blanks"}
  texts = {"text", "translation", "tokens", "prefix_tokens", "masked", "spans"}
  labels = {"classification", "tagging", "images"}
  others = {
    "summary",
    "decision",
    "time_series",
    "signals",
    "real_sum",
    "group_word",
  } | {"mano", "depo", "brevo", "lano"}
  assert named | adapters | texts | labels | others == set(tasks)


def test_training_answers_are_right(case):
  task, answer_of, prompt_size = case
  batch = drawn(task)
  assert batch.input_BL.shape == (ROWS, task.tokens(LONGEST))
  assert batch.at.order_BL.shape == (1, task.tokens(LONGEST))
  assert np.asarray(batch.target_BL).max() < task.vocabulary
  sizes = set()
  for row in range(ROWS):
    prompt, answer, weights, counted, end = read(batch, row)
    assert answer == answer_of(prompt)
    counted[end] = task.stops
    np.testing.assert_array_equal(weights, counted)
    sizes.add(len(prompt))
  assert sizes <= {prompt_size(n) for n in range(1, LONGEST + 1)}
  assert len(sizes) > LONGEST // 2


def test_a_problem_to_look_at_is_right(case):
  task, answer_of, prompt_size = case
  for length in (1, 7):
    prompt, answer = task.problem(length)
    assert len(prompt) == prompt_size(length) and answer == answer_of(prompt)
  assert task.problem(7) == task.problem(7) != task.problem(7, seed=1)


def test_scored_answers_are_right_and_end_at_the_right(case):
  task, answer_of, prompt_size = case
  for length in (1, 7):
    batch = scored(task, length)
    absent = task.tokens(LONGEST) - task.tokens(length)
    real = np.arange(task.tokens(LONGEST)) >= absent
    np.testing.assert_array_equal(batch.at.real_BL, real[None])
    for row in range(ROWS):
      prompt, answer, weights, counted, end = read(batch, row)
      assert len(prompt) == prompt_size(length) and end == len(weights) - 1
      assert answer == answer_of(prompt)
      counted[end] = task.stops
      np.testing.assert_array_equal(weights, counted)


@pytest.mark.parametrize("case", MORE, indirect=True)
def test_one_program_scores_every_length(case):
  task = case[0]
  score(task, 12)
  programs = score._cache_size()
  batch = score(task, 5)
  assert score._cache_size() == programs
  exact = score(task, 5, 5)
  for field in ("input_BL", "target_BL", "weight_BL"):
    right = np.asarray(getattr(batch, field))[:, -task.tokens(5) :]
    np.testing.assert_array_equal(right, getattr(exact, field), err_msg=field)


@pytest.mark.parametrize("name", ["copy", "reverse"])
def test_longer_strings_are_scored_on_the_same_symbols(name):
  task = tasks.build(f"{name}(scored=4)")
  same = scored(task, 4)
  counted = np.asarray(same.weight_BL) == 1
  assert (counted.sum(axis=1) == 4).all() and not counted[:, -1].any()
  for length in (5, 12):
    batch = scored(task, length)
    np.testing.assert_array_equal(batch.weight_BL, same.weight_BL)
    np.testing.assert_array_equal(
      np.asarray(batch.target_BL)[counted], np.asarray(same.target_BL)[counted]
    )


def test_scored_beyond_the_answer_counts_the_answer():
  batch = scored(tasks.build("copy(scored=9)"), 2)
  np.testing.assert_array_equal(np.asarray(batch.weight_BL).sum(axis=1), 2)


def test_fixed_trains_on_exactly_the_length():
  batch = drawn(tasks.build("copy(fixed=True)"))
  assert {len(read(batch, row)[0]) for row in range(ROWS)} == {LONGEST}
  assert set(np.asarray(batch.weight_BL).sum(axis=1)) == {LONGEST + 1}


@pytest.mark.parametrize("case", MORE, indirect=True)
def test_a_batch_is_pure_in_the_key(case):
  task = case[0]
  same = train(task).input_BL
  np.testing.assert_array_equal(same, train(task).input_BL)
  assert not np.array_equal(same, train(task, seed=1).input_BL)
  keys = jax.vmap(jax.random.key)(np.arange(2))
  seeds = jax.vmap(lambda key: task.batch((), key, ROWS, LONGEST).input_BL)
  both = jax.jit(seeds)(keys)
  np.testing.assert_array_equal(both[0], same)


def problems(batch, row):
  """Returns a row's prompt, its answer with the end, and the weights of the answer."""
  at, tokens = np.asarray(batch.at.order_BL)[0], np.asarray(batch.input_BL)[row]
  targets, weights = np.asarray(batch.target_BL)[row], np.asarray(batch.weight_BL)[row]
  end = np.flatnonzero(targets == END)[0]
  if batch.source_BL is None:
    first = np.flatnonzero(tokens == SEPARATOR)[0]
    prompt = tokens[np.flatnonzero(at == 0)[0] + 1 : first]
  else:
    first = np.flatnonzero(at == 0)[0]
    source = np.asarray(batch.source_BL)[row]
    orders = np.asarray(batch.source_at.order_BL)
    real = orders[row if len(orders) > 1 else 0] >= 0
    assert tokens[first] == START and (source[~real] == PAD).all()
    prompt = source[real]
  assert (targets[end + 1 :] == PAD).all() and not weights[:first].any()
  answer = slice(first, end + 1)
  return [part.tolist() for part in (prompt, targets[answer], weights[answer])]


@pytest.mark.parametrize("spec", ["addition", "recall(keys=20)", "copy(scored=3)"])
def test_pairs_pose_the_problems_of_the_task_they_hold(spec):
  alone, paired = tasks.build(spec), tasks.build(f"pairs({spec})")
  same = [(drawn(alone), drawn(paired))]
  same += [(scored(alone, n), scored(paired, n)) for n in (2, 12)]
  for want, got in same:
    sides = got.source_BL.shape[1], got.input_BL.shape[1]
    assert paired.tokens(LONGEST) == max(sides)
    for row in range(ROWS):
      assert problems(got, row) == problems(want, row)
  right = scored(paired, 2)
  assert right.source_BL[0, -1] != PAD and right.target_BL[0, -1] == END


def test_addition_carries_through_nines():
  from transformer_jax.data.tasks.algorithmic.addition import add as carry

  ones_first = np.array([10, 9, 9, 18, 0])  # 4995 + 14005 digit by digit
  number = sum(int(digit) * 10**n for n, digit in enumerate(ones_first))
  digits = [number // 10**n % 10 for n in range(6)]
  np.testing.assert_array_equal(carry(ones_first, 10), digits)


@pytest.mark.parametrize(
  ("spec", "says"),
  [
    ("revers", "Did you mean 'reverse'"),
    ("copy(symbol=3)", "Did you mean 'symbols'"),
    ("copy(symbols=0)", "copy: symbols is 0; it must be at least 1"),
    ("copy(scored=0)", "copy: scored is 0; it must be at least 1"),
    ("pairs(text)", "text has no prompt and answer to tell apart; write pairs(copy)"),
  ],
)
def test_a_wrong_task_is_refused(spec, says):
  with pytest.raises(SpecError, match=re.escape(says)):
    tasks.build(spec)


def test_recall_refuses_more_pairs_than_keys():
  with pytest.raises(SpecError, match=r"recall\(keys=12\)"):
    drawn(tasks.build("recall(keys=5)"))
