"""Tasks of the Chomsky hierarchy: right answers, fair draws, numbers of any size."""

import collections
import functools
import math

import jax
import numpy as np
import pytest
from task_oracles import ORACLES, brackets, parse

import transformer_jax.data  # noqa: F401
from transformer_jax.data.base import tasks
from transformer_jax.data.tasks.algorithmic.base import (
  END,
  FIRST,
  PAD,
  SEPARATOR,
  START,
)
from transformer_jax.data.tasks.algorithmic.binary_multiplication import multiply
from transformer_jax.data.tasks.algorithmic.modular_arithmetic_brackets import (
  expression,
)
from transformer_jax.data.tasks.algorithmic.sqrt import root
from transformer_jax.data.tasks.wrappers.blanks import BLANK
from transformer_jax.numpy_interpreter import evaluate, trace

ROWS, LONGEST = 1000, 40
CHECKED = 250  # rows whose answers the slow oracles find too
LENGTHS = (1, 2, 3, 4, 9, 40)
# Their answers have a terminator, the symbol 2, and padding that does not count.
ENDED = ("stack_manipulation", "binary_addition", "binary_multiplication")


@functools.cache
def build(name):
  return tasks.build(ORACLES[name].spec or name)


@functools.partial(jax.jit, static_argnums=0)
def score(task, length):
  return task.score((), jax.random.key(0), ROWS, length, LONGEST)


@functools.cache
def scored(name, length):
  return jax.device_get(score(build(name), length))


@functools.cache
def random_numbers():
  """Returns what the rows of `scored` are drawn from: a number of a row has a key."""
  key, numbers = jax.random.key(0), 1 + np.arange(30)
  draw = lambda n: jax.random.bits(jax.random.fold_in(key, n), (ROWS,))
  return jax.vmap(draw, out_axes=1)(numbers)


def written(name, token_BL):
  """Returns rows of tokens as strings of the alphabet of a task."""
  letters = np.array(list(ORACLES[name].alphabet))
  return ["".join(row) for row in letters[token_BL - FIRST]]


def problems(name, length):
  """Returns the prompts and the answers, as strings, after checking the marks."""
  batch = scored(name, length)
  token_BL = np.append(batch.input_BL, batch.target_BL[:, -1:], axis=1)
  start = token_BL.shape[1] - 1 - build(name).tokens(length)
  separator = np.flatnonzero(token_BL[0] == SEPARATOR)[0]
  for place, mark in ((start, START), (separator, SEPARATOR), (-1, END)):
    assert (token_BL[:, place] == mark).all()
  prompts = written(name, token_BL[:, start + 1 : separator])
  return prompts, written(name, token_BL[:, separator + 1 : -1])


def assert_fair(drawn, expected):
  """Checks that each outcome is as frequent as it should be, within 5 deviations."""
  found, total = collections.Counter(drawn), len(drawn)
  assert set(found) <= set(expected)
  for outcome, p in expected.items():
    slack = 5 * math.sqrt(p * (1 - p) * total)
    assert abs(found[outcome] - p * total) < slack, (outcome, p, found)


def uniform(outcomes):
  return dict.fromkeys(outcomes, 1 / len(outcomes))


@pytest.mark.parametrize("name", ORACLES)
def test_answers_are_right_at_every_length(name):
  answer_of = ORACLES[name].answer
  for length in LENGTHS:
    prompts, answers = problems(name, length)
    short = name == "modular_arithmetic" and length % 2 == 0
    assert {len(prompt) for prompt in prompts} == {length - short}
    drawn = {*zip(prompts[:CHECKED], answers[:CHECKED], strict=True)}
    wrong = [(p, a) for p, a in drawn if a != answer_of(p)]
    assert not wrong, wrong[:3]
  end = float(name == "reverse")  # the others are asked for symbols alone
  weight_BL, size = scored(name, 40).weight_BL, len(answers[0])
  for row, answer in enumerate(answers[:100]):
    counted = answer.index("2") + 1 if name in ENDED else size
    want = [1.0] * counted + [0.0] * (size - counted) + [end]
    np.testing.assert_array_equal(weight_BL[row, -size - 1 :], want)
    assert not weight_BL[row, : -size - 1].any()


@pytest.mark.parametrize("name", ORACLES)
def test_rows_are_the_same_in_every_bucket(name):
  task = build(name)
  random_RN = random_numbers()[:50, : task.numbers(9)]
  strings = jax.vmap(lambda random_N, n: task.strings(random_N, n, 9), (0, None))
  in_small_bucket = trace(strings, random_RN, np.int32(1))
  for length in (1, 2, 3, 4, 9):
    small = in_small_bucket(random_RN, np.int32(length))
    for symbol_RL, size, large in zip(
      small, task.sizes(length), problems(name, length), strict=True
    ):
      assert written(name, FIRST + symbol_RL[:, :size]) == large[:50]


@pytest.mark.parametrize(
  ("name", "classes"),
  [
    ("even_pairs", "01"),
    ("parity", "01"),
    ("missing_duplicate", "01"),
    ("cycle_navigation", "01234"),
    ("modular_arithmetic", "01234"),
    ("solve_equation", "01234"),
  ],
)
def test_guessing_gives_chance(name, classes):
  assert_fair(problems(name, 40)[1], uniform(classes))


@pytest.mark.parametrize(
  ("name", "kinds"),
  [
    ("even_pairs", ["01"]),
    ("parity", ["01"]),
    ("cycle_navigation", ["012"]),
    ("modular_arithmetic", ["01234", "+-*"]),
    ("reverse", ["01"]),
    ("duplicate", ["01"]),
    ("missing_duplicate", ["01"]),
    ("odds_first", ["01"]),
    ("bucket_sort", ["01234"]),
  ],
)
def test_symbols_of_a_kind_are_equally_likely(name, kinds):
  prompts = problems(name, 40)[0]
  assert len(set(prompts)) > 0.99 * ROWS
  for kind in kinds:
    assert_fair([s for s in "".join(prompts) if s in kind], uniform(kind))


def test_expressions_have_the_published_distribution():
  # By the grammar: how likely is each value of an expression of n symbols?
  likely = {1: np.full(5, 0.2), 2: np.full(5, 0.2), 3: np.full(5, 0.2)}
  likely[4] = likely[1]
  for n in range(5, 41):
    likely[n] = np.zeros(5)
    for left in range(1, n - 3):
      both = np.outer(likely[left], likely[n - 3 - left]) / (3 * (n - 4))
      for (a, b), p in np.ndenumerate(both):
        for value in (a + b, a - b, a * b):
          likely[n][value % 5] += p
  expected = {str(value): p for value, p in enumerate(likely[40])}
  assert_fair(problems("modular_arithmetic_brackets", 40)[1], expected)
  parsed = [parse(prompt) for prompt in problems("modular_arithmetic_brackets", 9)[0]]
  assert_fair([left for _, _, left in parsed], uniform(range(1, 6)))
  drawn = "".join(problems("modular_arithmetic_brackets", 40)[0])
  for symbols in ("01234", "+*"):
    assert_fair([s for s in drawn if s in symbols], uniform(symbols))
  # One digit becomes x: the next one after a place drawn from all of "((d)op(d))".
  marked = [p for p in problems("solve_equation", 9)[0] if p[1] == "("][:200]
  assert {p.index("x") for p in marked} == {2, 5}


def test_stacks_and_numbers_are_split_anywhere():
  prompts = problems("stack_manipulation", 9)[0]
  sizes = [len(prompt.rstrip("234")) for prompt in prompts]
  assert_fair(sizes, uniform(range(1, 9)))
  actions = [p[size:] for p, size in zip(prompts, sizes, strict=True)]
  assert_fair("".join(actions), uniform("234"))
  for name in ("binary_addition", "binary_multiplication"):
    prompts = problems(name, 9)[0]
    assert_fair([prompt.index("2") for prompt in prompts], uniform(range(1, 8)))
    bits = "".join(prompt for prompt in problems(name, 40)[0]).replace("2", "")
    assert abs(bits.count("1") / len(bits) - 0.5) < 0.05  # one bit alone is a 1
    assert_fair(problems(name, 2)[0], uniform(["00", "10", "01"]))


def test_squares_are_equally_likely():
  assert_fair(problems("sqrt", 3)[0], uniform([f"{n:03b}" for n in range(1, 8)]))
  for column in zip(*problems("sqrt", 40)[0], strict=True):
    assert_fair(column, uniform("01"))


def number(bit_N):
  return int("".join(map(str, bit_N[::-1].tolist())), 2)


def bits(numbers, size):
  """Returns big whole numbers as bits, lowest first."""
  text = [f"{n:0{size}b}"[::-1] for n in numbers]
  return np.array([[int(bit) for bit in row] for row in text], np.int32)


def test_numbers_of_500_bits():
  rng = np.random.default_rng(0)
  some = [number(row) for row in rng.integers(2, size=(8, 250))]
  some += [0, 1, 2**250 - 1, 2**125, 2**249]
  others = some[::-1]
  product = jax.jit(jax.vmap(multiply))(bits(some, 500), bits(others, 500))
  assert [number(row) for row in np.asarray(product)] == [
    a * b for a, b in zip(some, others, strict=True)
  ]
  squares = [n * n for n in some]
  around = squares + [n * n + 2 * n for n in some] + [n - 1 for n in squares if n]
  roots = np.asarray(jax.jit(jax.vmap(root))(bits(around, 500)))
  assert [number(row) for row in roots] == [math.isqrt(n) for n in around]


def test_expressions_of_500_symbols():
  draw = jax.jit(jax.vmap(lambda row: expression(row, 497, 3)))
  random_RN = np.random.default_rng(0).integers(2**32, size=(20, 1000), dtype=np.uint32)
  random_RN[0, ::2] = 0  # the left part is always one digit: brackets nest deepest
  symbol_RL, value_R = map(np.asarray, draw(random_RN))
  prompts = written("modular_arithmetic_brackets", FIRST + symbol_RL[:, :497])
  assert [brackets(prompt) for prompt in prompts] == [str(v) for v in value_R]
  assert max(prompts[0].index(")") for prompt in prompts) > 370


def answers(batch, row, marked):
  """Returns prompt, answer and weights of a row, where `marked` begins the answer."""
  tokens, targets = batch.input_BL[row], batch.target_BL[row]
  order_L = batch.at.order_BL[row if len(batch.at.order_BL) > 1 else 0]
  first = np.flatnonzero(tokens == marked)[0]
  prompt = tokens[np.flatnonzero(order_L == 0)[0] : first]
  answer = targets[first:]
  answer = answer[(answer != PAD) & (answer != END)]
  weights = batch.weight_BL[row, first : first + len(answer)]
  return [part.tolist() for part in (prompt[prompt != START], answer, weights)]


@pytest.mark.parametrize("name", ["stack_manipulation", "reverse"])
def test_blanks_pose_the_problems_of_the_task_they_hold(name):
  alone = build(name)
  task = tasks.build(f"blanks({ORACLES[name].spec or name})")
  assert task.kind == "encoder" and task.vocabulary == alone.vocabulary
  key, both = jax.random.key(0), (alone, task)
  # Interpreted, each draws the same numbers.
  train = [evaluate(lambda key, x=x: x.batch((), key, 50, 12), key) for x in both]
  score = [trace(lambda n, x=x: x.score((), key, 50, n, 12), np.int32(0)) for x in both]
  scored = [[run(np.int32(n)) for run in score] for n in (2, 12)]
  for want, got in (train, *scored):
    assert got.input_BL.shape == (50, task.tokens(12)) and got.source_BL is None
    training = len(got.at.order_BL) > 1
    for row in range(50):
      prompt, answer, weights = answers(want, row, SEPARATOR)
      weights = [1.0] * len(answer) if training else weights
      assert answers(got, row, BLANK) == [prompt, answer, weights]
      order_L = got.at.order_BL[row if training else 0]
      real_L = order_L >= 0
      read = got.input_BL[row][real_L].tolist()
      assert read == prompt + [BLANK] * len(answer)
      np.testing.assert_array_equal(order_L[real_L], np.arange(len(read)))
      assert real_L[0 if training else -1]
      assert (got.input_BL[row][~real_L] == PAD).all()
      assert got.weight_BL[row].sum() == sum(weights)
      assert (got.target_BL[row] != PAD).sum() == len(answer)


def test_blanks_refuse_what_has_no_answer():
  with pytest.raises(ValueError, match="text has no prompt and answer to tell apart"):
    tasks.build("blanks(text)")


@pytest.mark.parametrize("name", ["mqar", "flip_flop"])
def test_blanks_do_not_hide_questions(name):
  with pytest.raises(ValueError, match="which blanks would hide; use it in a decoder"):
    tasks.build(f"blanks({name})")


def test_a_growing_length_reaches_blanks():
  task = tasks.build("blanks(reverse(symbols=2, curriculum=0.5))")
  draw = lambda progress: task.batch((), jax.random.key(0), 64, 12, progress)
  batch = trace(draw, np.float32(0))
  sizes = lambda progress: batch(np.float32(progress)).at.real_BL.sum(axis=1) // 2
  assert sizes(0).max() == 1 and sizes(0.25).max() == 6 and sizes(1).max() == 12
