"""Ids that tasks supply: published examples, one id for the same worth or place."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import transformer_jax.data  # noqa: F401
from transformer_jax.data.base import Batch, Task, tasks
from transformer_jax.data.tasks.algorithmic.base import (
  END,
  FIRST,
  PAD,
  SEPARATOR,
  START,
)
from transformer_jax.evaluation.lengths import Evaluator
from transformer_jax.numpy_interpreter import evaluate
from transformer_jax.positions import coords

ROWS, LONGEST = 8, 6
PLUS = FIRST + 10
NAMES = {SEPARATOR: "=", START: "^", END: "$", PLUS: "+", PAD: " "}


def characters(tokens):
  return "".join(NAMES.get(token) or str(token - FIRST) for token in tokens)


def abacus(text):
  """Counts within runs of digits, as in the released code of McLeish et al., 2024."""
  found = []
  for character in text:
    found.append(1 + (found[-1] if found else 0) if character.isdigit() else 0)
  return found


def coupled(text, start):
  """The rule of Cho et al., 2024, for digits of equal numbers and a reversed answer."""
  question, answer = text.split("=")
  digits = question.index("+")
  operand = [start + digits - n for n in range(digits)]
  return [
    *operand,
    start,
    *operand,
    start,
    *(start + 1 + n for n in range(len(answer))),
  ]


# Interpreted: compiling is most of what these tests would cost.
@functools.cache
def batches(spec):
  """Returns a batch of training and one that is scored."""
  task, key = tasks.build(spec), jax.random.key(0)
  score = lambda key, length: task.score((), key, ROWS, length, LONGEST)
  train = evaluate(lambda key: task.batch((), key, ROWS, LONGEST), key)
  return train, evaluate(score, key, np.int32(4))


def rows(spec, name):
  """Returns (tokens, ids) that models read, one pair per row of both batches."""
  found = []
  for batch in batches(spec):
    ids_BL = np.broadcast_to(batch.at.data[name], batch.input_BL.shape)
    assert ids_BL.dtype == np.int32
    found += zip(batch.input_BL.tolist(), ids_BL.tolist(), strict=True)
  return found


def spec(reversed, reversed_operands):
  return f"addition(reversed={reversed}, reversed_operands={reversed_operands})"


def test_the_rules_give_the_published_examples():
  assert abacus("98+5=301") == [1, 2, 0, 1, 0, 1, 2, 3]
  assert coupled("653+049=2070", 5) == [8, 7, 6, 5, 8, 7, 6, 5, 6, 7, 8, 9]


@pytest.mark.parametrize("operands", [True, False])
@pytest.mark.parametrize("answer", [True, False])
def test_addition_counts_digits_in_each_number(answer, operands):
  for tokens, ids in rows(spec(answer, operands), "abacus_BL"):
    assert ids == abacus(characters(tokens))


def test_addition_is_coupled_as_published():
  lengths = set()
  for tokens, ids in rows(spec(True, False), "coupled_BL"):
    text = characters(tokens)
    first = text.index("^")
    text = text[first + 1 :].split("$")[0].strip()
    end = first + 1 + len(text)
    assert ids[first + 1 : end] == coupled(text, 1)
    assert not any(ids[: first + 1] + ids[end:])
    lengths.add(text.index("+"))
  assert len(lengths) > 3


@pytest.mark.parametrize("operands", [True, False])
@pytest.mark.parametrize("answer", [True, False])
def test_equal_significance_is_an_equal_id(answer, operands):
  for tokens, ids in rows(spec(answer, operands), "coupled_BL"):
    text = characters(tokens).rstrip(" $")
    places = [n for n, character in enumerate(text) if character in "^+="]
    first, plus, equals = places
    numbers = [(first + 1, plus), (plus + 1, equals), (equals + 1, len(text))]
    for (start, end), backwards in zip(
      numbers, (operands, operands, answer), strict=True
    ):
      by_worth = ids[start:end] if backwards else ids[start:end][::-1]
      assert by_worth == list(range(2, 2 + end - start))
    assert ids[plus] == 1
    # The separator is one step before the digit that it is there to predict.
    step = 1 if answer else -1
    assert ids[equals] + step == ids[equals + 1]


def test_hinted_addition_has_no_ids():
  assert tasks.build("addition(hints=20)").ids(jnp.int32(2), 3) == {}


COPIES = {
  "copy(symbols=4, times=2)": (+1, +1),
  "reverse(symbols=4, times=2, copied=True)": (-1, -1, +1),
  "reverse(symbols=4, copied=True)": (-1, +1),
}


@pytest.mark.parametrize("name", COPIES)
def test_a_symbol_and_its_copies_have_one_id(name):
  for tokens, ids in rows(name, "coupled_BL"):
    start, separator = tokens.index(START), tokens.index(SEPARATOR)
    n = separator - start - 1
    prompt = list(range(2, n + 2))
    assert ids[start:separator] == [0, *prompt]
    end = separator + len(COPIES[name]) * (n + 1)
    symbol = dict(zip(prompt, tokens[start + 1 : separator], strict=True))
    for part, step in enumerate(COPIES[name]):
      mark = separator + part * (n + 1)
      own = slice(mark + 1, mark + 1 + n)
      assert [symbol[at] for at in ids[own]] == tokens[own]
      # A mark is one step before its string, and each symbol before the next.
      assert ids[mark : mark + n + 1] == [ids[mark] + step * k for k in range(n + 1)]
    assert not any(ids[:start] + ids[end:])


@pytest.mark.parametrize("name", [spec(True, False), "reverse(symbols=4, copied=True)"])
def test_pairs_have_the_ids_of_the_task_they_hold(name):
  for one, pair in zip(batches(name), batches(f"pairs({name})"), strict=True):
    for row in range(ROWS):
      for key in one.at.data:
        own = lambda at, key=key, row=row: at.data[key][row % len(at.data[key])]
        tokens = one.input_BL[row].tolist()
        first, separator = tokens.index(START), tokens.index(SEPARATOR)
        source_at = pair.source_at
        real = source_at.real_BL[row % len(source_at.real_BL)]
        got = own(source_at)
        np.testing.assert_array_equal(got[real], own(one.at)[first + 1 : separator])
        assert not got[~real].any()
        start = pair.input_BL[row].tolist().index(START)
        rest = own(one.at)[separator:]
        size = len(np.trim_zeros(rest, "b"))
        got = own(pair.at)[start:]
        np.testing.assert_array_equal(got[:size], rest[:size])
        assert not got[size:].any() and not own(pair.at)[:start].any()


@dataclasses.dataclass(frozen=True)
class Dice(Task):
  """Rows with coordinates of their own, and some that they share."""

  vocabulary = 8
  kind = "encoder_decoder"

  def tokens(self, length):
    return length

  def score(self, arrays, key, batch_size, length, bucket):
    token_BL = jax.random.randint(key, (batch_size, bucket), 0, 8)
    at = coords.consecutive(1, bucket)
    at = at.replace(data={"own_BL": token_BL % 3, "all_BL": at.pos_BL})
    return Batch(token_BL, token_BL, jnp.ones((batch_size, bucket)), at, token_BL, at)


class Reader:
  """Predicts from its coordinates alone; refuses those of other rows."""

  def apply(self, variables, token_BL, at, source_BL, source_at):
    assert token_BL.shape[0] == 2 and at.order_BL.shape[0] == 1
    own_BL, all_BL = at.data["own_BL"], source_at.data["all_BL"]
    assert own_BL.shape == source_BL.shape == token_BL.shape and all_BL.shape[0] == 1
    return jax.nn.one_hot((own_BL + 3 * all_BL) % 8, 8)


def test_coordinates_of_rows_are_scored_with_their_rows():
  evaluator = Evaluator(Reader(), Dice(), examples=6, batch_size=2)
  batch = jax.jit(lambda: evaluator.task.score((), jax.random.key(0), 6, 5, 5))()
  _, right_BL, _ = evaluator.scorer.chunks({}, batch)
  token_BL = np.asarray(batch.input_BL)
  want_BL = (token_BL % 3 + 3 * np.arange(5)) % 8 == token_BL
  np.testing.assert_array_equal(right_BL, want_BL)
  assert want_BL.any() and not want_BL.all()
