"""Mano: the authors' texts, an oracle, the published shapes, rows in buckets."""

import collections
import re

import jax
import numpy as np
import pytest

from transformer_jax.data.base import tasks
from transformer_jax.data.tasks.algorithmic.base import END, FIRST, SEPARATOR, START
from transformer_jax.data.tasks.algorithmic.mano import evaluate as value_of
from transformer_jax.data.tasks.algorithmic.mano import shape_of
from transformer_jax.numpy_interpreter import evaluate
from transformer_jax.spec import SpecError

MODULUS, ROWS = 23, 64
# Texts of Mano/mano.py, https://github.com/facebookresearch/PhysicsLM4 at 75806965208c:
# 10 * operators (+ 1), an expression, 10 * operators + 4 (+ 1), 5000 + its value.
# Operators + - * are 1 2 3 or 5 6 7, numbers 5000 + v.
TEXTS = [
  [20, 5, 5003, 7, 5018, 5013, 24, 5007],
  [
    *(91, 6, 5, 7, 5010, 5008, 1, 1, 5012, 5003, 5011, 7, 3, 5012, 5, 7, 5018, 5006),
    *(5001, 5002, 95, 5020),
  ],
  [61, 3, 5, 3, 3, 5005, 5014, 2, 5021, 2, 5007, 5001, 5002, 5018, 65, 5007],
  [
    *(80, 3, 6, 5, 5002, 5001, 1, 3, 5019, 5002, 2, 7, 5017, 5000, 5021, 6, 5005, 5014),
    *(85, 5011),
  ],
  [50, 3, 1, 3, 5007, 5014, 1, 5022, 2, 5008, 5004, 5002, 54, 5018],
  [10, 3, 5001, 5014, 14, 5014],
]


def parse(prompt, modulus=MODULUS):
  """Returns (value, symbols, [(operators, operators of the first part), ...])."""
  if prompt[0] < modulus:
    return prompt[0], 1, []
  first, size, shapes = parse(prompt[1:], modulus)
  second, other, more = parse(prompt[1 + size :], modulus)
  operate = [int.__add__, int.__sub__, int.__mul__][prompt[0] - modulus]
  own = ((size + other) // 2, size // 2)
  return operate(first, second) % modulus, 1 + size + other, [own, *shapes, *more]


def symbols(text):
  """Returns our symbols of an expression in the authors' tokens, and its value."""
  ours = [x - 5000 if x >= 5000 else MODULUS + (x - 1) % 4 for x in text[1:-2]]
  return ours, text[-1] - 5000


@pytest.mark.parametrize("text", TEXTS)
def test_texts_of_the_authors_have_our_values(text):
  prompt, answer = symbols(text)
  value, size, shapes = parse(prompt)
  assert value == answer and size == len(prompt) == 2 * (text[0] // 10) + 1
  # Shapes by place, for our own evaluation.
  size_P, left_P = np.zeros((2, size), np.int32)
  places = [n for n, symbol in enumerate(prompt) if symbol >= MODULUS]
  for place, (operators, left) in zip(places, shapes, strict=True):
    size_P[place], left_P[place] = operators, left
  number_P = np.int32(prompt)
  given = size_P, left_P, number_P, number_P - MODULUS
  assert evaluate(lambda *args: value_of(*args, MODULUS), *given)[0] == answer


@pytest.fixture(scope="module")
def batch():
  task = tasks.build("mano")
  return evaluate(lambda: task.score((), jax.random.key(0), ROWS, np.int32(8), 10))


def test_answers_are_those_of_the_oracle(batch):
  token_BL = np.append(batch.input_BL, np.asarray(batch.target_BL)[:, -1:], axis=1)
  for row, weight_L in zip(token_BL, batch.weight_BL, strict=True):
    start, separator = (np.flatnonzero(row == x)[0] for x in (START, SEPARATOR))
    prompt = (row[start + 1 : separator] - FIRST).tolist()
    value, size, _ = parse(prompt)
    assert size == len(prompt) == 17
    assert row[separator + 1] - FIRST == value and row[separator + 2] == END
    assert weight_L.sum() == 1 and weight_L[separator] == 1


def test_parts_have_the_published_sizes():
  """The first part of n operators has 0 to n - 1, equally likely."""
  random_NP = np.random.default_rng(0).integers(2**32, size=(300, 9), dtype=np.uint32)
  lefts = [int(evaluate(shape_of, row, np.int32(4))[1][0]) for row in random_NP]
  found = collections.Counter(lefts)
  assert set(found) == {0, 1, 2, 3} and min(found.values()) > 45  # of 75


def test_a_problem_is_the_same_in_every_bucket():
  task = tasks.build("mano(modulus=7)")
  random_N = np.random.default_rng(0).integers(2**32, size=42, dtype=np.uint32)
  for length in (1, 3):
    small, large = (
      evaluate(lambda x, n=length, L=L: task.strings(x, np.int32(n), L), random_N[:N])
      for L, N in ((3, 14), (10, 42))
    )
    size = 2 * length + 1
    np.testing.assert_array_equal(small[0][:size], large[0][:size])
    assert small[1] == large[1]


@pytest.mark.parametrize("modulus", [1, 2**15 + 1])
def test_an_impossible_modulus_is_refused(modulus):
  with pytest.raises(
    SpecError, match=re.escape(f"mano: modulus is {modulus}; write a")
  ):
    tasks.build(f"mano(modulus={modulus})")
