"""What all tasks of strings share: growing lengths, ids of tokens, early ends."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import transformer_jax.data  # noqa: F401
from transformer_jax.data.base import tasks
from transformer_jax.data.tasks.algorithmic.base import (
  END,
  FIRST,
  SEPARATOR,
  Strings,
  below,
)
from transformer_jax.spec import SpecError

ROWS, LONGEST, KEY = 400, 12, jax.random.key(0)


@dataclasses.dataclass(frozen=True)
class Named(Strings):
  """Copies bits; its answers end at the first 1; each token is named by its place."""

  symbols = 2
  stops = False
  terminator = 1

  def sizes(self, length):
    return length, length

  def strings(self, random_N, length, longest):
    bit_L = below(2, random_N)
    return bit_L, bit_L

  def ids(self, length, longest):
    place_L = jnp.arange(self.tokens(longest) + 1)
    return {"place_BL": jnp.where(place_L <= 2 * length + 2, 100 * length + place_L, 0)}


def test_lengths_grow_for_a_share_of_training():
  task, plain = tasks.build("copy(curriculum=0.5)"), tasks.build("copy")
  grow = jax.jit(lambda progress: task.batch((), KEY, ROWS, LONGEST, progress))
  for progress, longest in ((0, 1), (0.01, 1), (0.2, 5), (0.25, 6), (0.5, 12), (1, 12)):
    batch = grow(jnp.float32(progress))
    size_B = np.argmax(np.asarray(batch.input_BL) == SEPARATOR, axis=1) - 1
    assert set(size_B) == set(range(1, longest + 1))
  same = jax.jit(lambda progress: plain.batch((), KEY, ROWS, LONGEST, progress))(0.0)
  np.testing.assert_array_equal(batch.input_BL, same.input_BL)


@pytest.mark.parametrize(
  ("spec", "says"),
  [
    ("copy(curriculum=2)", "copy: curriculum is 2; it is a share of training, 0 to 1"),
    ("copy(curriculum=-0.1)", "copy: curriculum is -0.1; it is a share of training"),
    ("copy(curriculum=0.5, fixed=True)", "curriculum on growing ones; drop one"),
  ],
)
def test_a_length_that_cannot_grow_is_refused(spec, says):
  with pytest.raises(SpecError, match=re.escape(says)):
    tasks.build(spec)


def test_ids_follow_the_tokens():
  task = Named()
  train, score = jax.jit(
    lambda n: (
      task.batch((), KEY, ROWS, LONGEST),
      task.score((), KEY, ROWS, n, LONGEST),
    )
  )(5)
  L = task.tokens(LONGEST)
  assert train.at.data["place_BL"].shape == (ROWS, L)
  for row in range(20):
    size = np.argmax(np.asarray(train.input_BL)[row] == SEPARATOR) - 1
    place_L = np.arange(L)
    named = np.where(place_L <= 2 * size + 2, 100 * size + place_L, 0)
    np.testing.assert_array_equal(train.at.data["place_BL"][row], named)
  absent = L - task.tokens(5)
  named = np.append(np.zeros(absent), 500 + np.arange(12))
  np.testing.assert_array_equal(score.at.data["place_BL"], named[None])
  assert (score.at.order_BL[0, absent:] == np.arange(12)).all()


def test_nothing_counts_after_a_terminator():
  task = Named()
  batch = jax.jit(lambda: task.batch((), KEY, ROWS, LONGEST))()
  for row in range(50):
    target, weight = np.asarray(batch.target_BL)[row], np.asarray(batch.weight_BL)[row]
    first = np.argmax(np.asarray(batch.input_BL)[row] == SEPARATOR)
    answer = target[first : np.argmax(target == END)].tolist()
    ones = [n + 1 for n, token in enumerate(answer) if token == FIRST + 1]
    counted = ones[0] if ones else len(answer)
    assert weight.sum() == counted and weight[first : first + counted].all()
