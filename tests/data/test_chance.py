"""Chance of the tasks: a guess among all answers that there are."""

import jax
import numpy as np
import pytest

from transformer_jax import numpy_interpreter
from transformer_jax.data.base import tasks
from transformer_jax.data.tasks.algorithmic.base import Strings

LENGTH = 8
ALGORITHMIC = [
  *(x for x in tasks if issubclass(tasks[x], Strings) and x != "mano"),
  "mano(modulus=5)",
  *("copy(symbols=3)", "copy(times=2)", "copy(scored=4)", "reverse(copied=True)"),
  *("blanks(copy(symbols=3))", "pairs(copy(symbols=3))", "prefixed(parity)"),
  "blanks(binary_addition)",
]


@pytest.mark.parametrize("name", ALGORITHMIC)
def test_there_are_as_many_answers_as_chance_says(name):
  task = tasks.build(name)

  def draw():
    return task.score((), jax.random.key(0), 64, np.int32(LENGTH), LENGTH)

  batch = numpy_interpreter.evaluate(draw)
  counts_BL = np.asarray(batch.weight_BL) > 0
  target_BL = np.asarray(batch.target_BL)
  answers = np.unique(target_BL[counts_BL])
  chance = task.chance("accuracy", LENGTH)
  # All answers occur among so many, unless an alphabet is large.
  assert len(answers) == round(1 / chance) or 1 / chance > len(answers) > 20
  exact = task.chance("exact_match", LENGTH)
  sizes = np.unique(counts_BL.sum(1))
  if exact is not None:
    assert sizes.size == 1 and exact == pytest.approx(chance ** sizes[0])
  assert task.chance("bits_per_byte", LENGTH) is None


def test_where_chance_is_unknown_there_is_none():
  assert tasks.build("addition(hints=40)").chance("accuracy", 8) is None
  assert tasks.build("text").chance("bits_per_byte", 8) is None
