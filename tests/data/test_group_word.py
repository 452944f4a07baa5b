"""Word problems of groups: recorded tables and products, an oracle, scored places."""

import itertools
import pathlib
import re

import jax
import numpy as np
import pytest

from transformer_jax.data.base import tasks
from transformer_jax.data.tasks.algorithmic import finite_groups
from transformer_jax.data.tasks.algorithmic.base import FIRST, PAD, START
from transformer_jax.numpy_interpreter import evaluate
from transformer_jax.spec import SpecError

RECORDED = pathlib.Path(__file__).parents[2] / "third_party" / "word_problem"


@pytest.fixture(scope="module")
def recorded():
  with np.load(RECORDED / "groups.npz", allow_pickle=False) as file:
    return {name: x.astype(np.int32) for name, x in file.items()}


@pytest.mark.parametrize("name", ["S3", "A5", "S5"])
def test_tables_and_products_are_the_recorded_ones(recorded, name):
  task = tasks.build(f"group_word({name!r})")
  table_NN = finite_groups.build(name).table_NN
  np.testing.assert_array_equal(table_NN, recorded[f"{name}/table"])
  got = evaluate(task.products, recorded[f"{name}/input"])
  np.testing.assert_array_equal(got, recorded[f"{name}/target"])


def composed(permutations):
  """Returns the products of permutations so far, the last of which acts first."""
  so_far = tuple(range(len(permutations[0])))
  for p in permutations:
    so_far = tuple(so_far[i] for i in p)
    yield so_far


# How each group's elements are written out: n -> what is multiplied, and how.
S4 = list(itertools.permutations(range(4)))
ORACLES = {
  "S4": lambda word: [S4.index(p) for p in composed([S4[n] for n in word])],
  "Z7": lambda word: [int(n) % 7 for n in np.cumsum(word)],
  # Element n of S4_x_Z3 is (n // 3, n % 3).
  "S4_x_Z3": lambda word: [
    3 * S4.index(p) + int(z) % 3
    for p, z in zip(
      composed([S4[n // 3] for n in word]), np.cumsum(word % 3), strict=True
    )
  ],
}


@pytest.mark.parametrize("name", ORACLES)
def test_each_element_s_target_is_the_product_so_far(name):
  task = tasks.build(f"group_word({name!r})")
  batch = evaluate(lambda: task.batch((), jax.random.key(0), 16, 9))
  input_BL, target_BL = np.asarray(batch.input_BL), np.asarray(batch.target_BL)
  assert (input_BL[:, 0] == START).all()
  np.testing.assert_array_equal(batch.weight_BL, (input_BL != START).astype(float))
  for word, target in zip(input_BL[:, 1:] - FIRST, target_BL[:, 1:], strict=True):
    assert ORACLES[name](word) == (target - FIRST).tolist()
  drawn = np.unique(input_BL[:, 1:])
  assert drawn.min() >= FIRST and drawn.max() < task.vocabulary and len(drawn) > 5


def test_scored_words_end_at_the_right_and_are_those_of_every_bucket():
  task = tasks.build("group_word('A4', scored=3)")

  def score(length, bucket):
    return task.score((), jax.random.key(0), 8, np.int32(length), bucket)

  wide, exact = evaluate(lambda: score(5, 9)), evaluate(lambda: score(5, 5))
  for field in ("input_BL", "target_BL", "weight_BL"):
    x_BL = np.asarray(getattr(wide, field))
    np.testing.assert_array_equal(x_BL[:, 4:], getattr(exact, field), err_msg=field)
    assert (x_BL[:, :4] == PAD).all()
  np.testing.assert_array_equal(wide.at.real_BL, [[False] * 4 + [True] * 6])
  np.testing.assert_array_equal(exact.weight_BL, [[0, 0, 0, 1, 1, 1]] * 8)
  short = evaluate(lambda: score(2, 9)).weight_BL
  np.testing.assert_array_equal(short.sum(axis=1), 2)


def test_words_of_swaps_alone():
  task = tasks.build("group_word('S5', moved=2)")
  batch = evaluate(lambda: task.batch((), jax.random.key(0), 64, 9))
  group = finite_groups.build("S5")
  drawn = {*np.asarray(batch.input_BL)[:, 1:].reshape(-1) - FIRST}
  # The identity and the ten swaps, all of which occur among 576.
  assert drawn == {*np.flatnonzero(group.moved_N <= 2)} and len(drawn) == 11
  assert (group.moved_N[[0, 1]] == [0, 2]).all()


def test_chance_guesses_among_the_elements():
  task = tasks.build("group_word('S3', scored=4)")
  assert task.chance("accuracy", 9) == 1 / 6
  assert task.chance("exact_match", 9) == pytest.approx(6**-4)
  assert task.chance("exact_match", 2) == pytest.approx(6**-2)
  assert task.chance("mae", 9) is None


def test_the_probe_s_label_is_the_product():
  task = tasks.build("group_word('S3')")
  batch = evaluate(lambda: task.score((), jax.random.key(0), 4, np.int32(3), 5))
  label = task.probe_labels()["state"]
  label_BL, weight_BL = evaluate(lambda: label.compute(batch))
  np.testing.assert_array_equal(weight_BL, [[0, 0, 0, 1, 1, 1]] * 4)
  np.testing.assert_array_equal(label_BL[:, 3:] + FIRST, batch.target_BL[:, 3:])


@pytest.mark.parametrize(
  ("spec", "says"),
  [
    ("group_word('D5')", "group is 'D5'; write S5 (all permutations)"),
    ("group_word('S5xZ2')", "or a product such as A4_x_Z5"),
    ("group_word('S7')", "group 'S7' has more than 1000 elements"),
    ("group_word('Z9', moved=3)", "moved=3 leaves only the identity of Z9"),
    ("group_word('S1')", "leaves only the identity of S1"),
    ("group_word(scored=0)", "scored is 0; it must be at least 1"),
  ],
)
def test_a_wrong_group_is_refused(spec, says):
  with pytest.raises(SpecError, match=re.escape(says)):
    tasks.build(spec)
