"""Every score is the mean over each example once.

Reported: with fewer texts than `evaluate.examples` some were counted twice: five texts
filled eight rows, and an accuracy of 4 / 5 was 0.75.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import one_program
import pytest

import transformer_jax.data  # noqa: F401, fills the registry of tasks
from transformer_jax.data.base import Batch, Task, tasks
from transformer_jax.data.tasks.algorithmic.permutation import each_once
from transformer_jax.data.tasks.language import pair_rows
from transformer_jax.data.token_cache import Tokenized
from transformer_jax.devices import split_rows
from transformer_jax.evaluation.lengths import Evaluator
from transformer_jax.numpy_interpreter import evaluate, trace
from transformer_jax.positions import coords
from transformer_jax.training import sharding

EXAMPLES, BUCKET = 5, 16
RANDOM = np.random.default_rng(0)
BYTES = "'nowhere', window=32, scored=8"
TOKENS = f"{BYTES}, tokenizer='byte(sentinels=40)'"
LABELS = "'nowhere', tokenizer='byte', classes=7"


def text():
  token_N = RANDOM.integers(50, 250, 400).astype(np.int32)
  end_W = 33 + 8 * np.array([0, 3, 4, 9, 20], np.int32)
  return {"scored_N": token_N, "end_W": end_W, "pieces": np.int32(301)}


def labels(parts):
  """Returns arrays of texts of 3 to 11 tokens, with so many labels or one."""
  size_E = np.array([3, 11, 7, 4, 9], np.int32)
  first_E = np.cumsum([0, *size_E[:-1]], dtype=np.int32)
  label_N = np.full(size_E.sum(), -1, np.int32)
  for first, size in zip(first_E, size_E, strict=True):
    there = first + RANDOM.permutation(size)[: parts or 1]
    label_N[first] = RANDOM.integers(0, 7)
    label_N[there if parts else first] = RANDOM.integers(0, 7)
  token_N = RANDOM.integers(5, 200, size_E.sum()).astype(np.int32)
  data = {"token_N": token_N, "label_N": label_N, "start_E": first_E}
  data |= {"size_E": size_E, "before_E": size_E}
  return {"scored": data, "frame_2": np.array([1, 2], np.int32)}


def pairs():
  sides = [
    (RANDOM.integers(5, 200, n).tolist(), RANDOM.integers(5, 200, m).tolist())
    for n, m in ((3, 7), (9, 4), (5, 5), (8, 11), (2, 3))
  ]
  size_D = np.array([len(side) for pair in sides for side in pair])
  token_N = np.concatenate([side for pair in sides for side in pair])
  tokens = Tokenized(None, {"train": token_N}, {"train": size_D})
  data = pair_rows.arrays_of(tokens, "train", np.arange(len(sides)))
  return {"scored": data | {"ends_2": np.array([1, 2], np.int32)}}


def images():
  image = RANDOM.integers(0, 256, (EXAMPLES, 8, 8, 1)).astype(np.uint8)
  return {"scored": {"image": image, "label_N": np.arange(5, dtype=np.int32) % 3}}


TASKS = {
  f"text({BYTES})": text,
  f"tokens({TOKENS})": text,
  f"prefix_tokens({TOKENS})": text,
  f"masked({TOKENS})": text,
  f"spans({TOKENS})": text,
  f"classification({LABELS})": functools.partial(labels, 0),
  f"classification({LABELS}, kind='decoder')": functools.partial(labels, 0),
  f"tagging({LABELS})": functools.partial(labels, 3),
  "translation('nowhere', tokenizer='byte')": pairs,
  "images('nowhere', classes=3, patch=2)": images,
}
ANEW = "masked", "spans"  # chance decides by row which tokens of an example count
LENGTHS = {"images": (2, 4)}  # patches on a side
PER_EXAMPLE = "end_W", "start_E", "size_E", "before_E", "start_P2", "size_P2"
PER_EXAMPLE += "image", "label_N"


class Guess:
  """Guesses by sums of what it reads: any deterministic model would do."""

  def __init__(self, classes):
    self.classes = classes

  def apply(self, variables, token_BL, at, *source):
    if token_BL.ndim == 4:
      token_BL = jnp.sum(jnp.abs(token_BL), axis=(1, 2, 3))[:, None] * 100
    shape = token_BL.shape[0], at.order_BL.shape[1]
    sum_BL = jnp.broadcast_to(token_BL, shape).astype(jnp.int32) * 7
    sum_BL += jnp.where(at.order_BL < 0, 0, at.order_BL * 3)
    logits_BLV = 3.0 * jax.nn.one_hot(sum_BL % self.classes, self.classes)
    return logits_BLV + 0.01 * variables["params"]


@functools.cache
def made(spec):
  return tasks.build(spec), TASKS[spec]()


@functools.cache
def scorer(spec):
  """Returns an evaluator of one example, the longest length, and what scores it."""
  task, _ = made(spec)
  model, name = Guess(task.classes or task.vocabulary), spec.partition("(")[0]
  evaluator = Evaluator(model, Rows(task) if name in ANEW else task, 1, 1)
  longest = LENGTHS.get(name, (8, BUCKET))[-1]
  score = functools.partial(one_program.scores, evaluator, jnp.ones(()), bucket=longest)
  return evaluator, longest, score


@functools.cache
def one_by_one(spec, length):
  """Returns the scores of every example alone, and their means, in a Python loop."""
  task, arrays = made(spec)
  evaluator, longest, score = scorer(spec)
  if spec.partition("(")[0] in ANEW:
    batch = jax.device_get(drawn(task, arrays, 99, length, longest))
    each = [jax.tree.map(lambda x, n=n: x[n % len(x)][None], batch) for n in range(5)]
  else:
    each = [alone(arrays, n) for n in range(EXAMPLES)]
  run = trace(score, each[0], np.int32(length))  # compiling takes longer
  scores = [run(one, np.int32(length)) for one in each]
  counted = [x for x, examples, *_ in scores if examples]
  return {k: np.mean([x[k] for x in counted]) for k in evaluator.columns()}, len(
    counted
  )


@functools.partial(jax.jit, static_argnums=(0, 2, 4))
def drawn(task, arrays, rows, length, bucket):
  return task.score(arrays, jax.random.key(0), rows, length, bucket)


class Rows:
  """A task whose only example is the batch itself."""

  def __init__(self, task):
    self.measures, self.objective = task.measures, task.objective
    self.target_numbers = task.target_numbers

  def score(self, arrays, *rest):
    return arrays


def alone(arrays, n):
  """Returns the arrays of one example."""
  words = "label_N" if "token_N" in arrays.get("scored", {}) else ""

  def cut(path, x):
    name = path[-1].key
    return x[n : n + 1] if name in PER_EXAMPLE and name != words else x

  return jax.tree_util.tree_map_with_path(cut, arrays)


def check(spec, rows, chunk, devices=1):
  task, arrays = made(spec)
  lengths = LENGTHS.get(spec.partition("(")[0], (8, BUCKET))
  mesh = sharding.make_mesh(devices)
  split = functools.partial(split_rows, mesh=mesh)
  model = Guess(task.classes or task.vocabulary)
  evaluator = Evaluator(model, task, rows, chunk, split=split)
  program = jax.jit(
    functools.partial(one_program.scores, evaluator, bucket=lengths[-1])
  )
  for length in lengths:
    with jax.set_mesh(mesh):
      scores = program(jnp.ones(()), arrays, jnp.int32(length))
    found, examples, lost, *_ = jax.device_get(scores)
    wanted, counted = one_by_one(spec, length)
    assert (examples, lost) == (counted, 0)
    for column, value in wanted.items():
      np.testing.assert_allclose(found[column], value, rtol=1e-5, err_msg=str(column))


def quick(*names):
  """Returns all tasks, of which those whose names start otherwise are slow."""
  slow = lambda spec: () if spec.startswith(names) else pytest.mark.slow
  return [pytest.param(spec, marks=slow(spec)) for spec in TASKS]


# Of tasks over one kind of files, those that read examples in ways of their own.
ONE_OF_A_KIND = "text(", "masked(", "tagging(", "translation(", "images("


@pytest.mark.parametrize("spec", quick(*ONE_OF_A_KIND))
def test_scores_are_means_of_a_loop_over_examples(spec):
  check(spec, rows=8, chunk=2)


CASES = [
  ("classification", 8, 8, 4),  # one chunk, more than there are examples
  pytest.param("translation", 32, 4, 2, marks=pytest.mark.slow),
  ("masked", 5, 5, 1),  # as many rows as examples
]


@pytest.mark.parametrize(("name", "rows", "chunk", "devices"), CASES)
def test_neither_chunks_nor_devices_change_a_score(name, rows, chunk, devices):
  check(next(x for x in TASKS if x.startswith(name)), rows, chunk, devices)


@pytest.mark.slow
@pytest.mark.parametrize("spec", TASKS)
def test_no_size_of_rows_chunks_and_meshes_changes_a_score(spec):
  for rows, chunk, devices in itertools.product((5, 6, 40), (1, 4, 40), (1, 4)):
    if not chunk % devices:
      check(spec, rows, chunk, devices)


@pytest.mark.parametrize("spec", quick("spans(", "tagging(", "translation(", "images("))
def test_of_more_examples_than_rows_different_ones_are_drawn(spec):
  task, arrays = made(spec)
  length = 4 if spec.startswith("images") else BUCKET
  score = lambda arrays, key: task.score(arrays, key, 3, length, length)
  batch = evaluate(score, arrays, jax.random.key(0))
  rows = np.asarray(batch.input_BL).reshape(3, -1)
  assert len(np.unique(rows, axis=0)) == 3


def test_enough_examples_are_drawn_as_ever():
  key = jax.random.key(0)

  def both():
    for examples, rows in ((5, 3), (8, 8), (100, 64)):
      before_B = jax.random.permutation(key, examples)[jnp.arange(rows) % examples]
      yield each_once(key, examples, rows), before_B

  for found_B, before_B in jax.jit(lambda: [*both()])():
    np.testing.assert_array_equal(found_B, before_B)


def test_a_task_of_one_example_and_examples_without_a_target():
  class Some(Task):
    vocabulary = 4
    measures = ("accuracy", "exact_match", "bits_per_byte")

    def tokens(self, length):
      return length

    def score(self, arrays, key, batch_size, length, bucket):
      """Two examples count, one of which has one target; what has none is no one."""
      size = (0, batch_size - 3), (0, bucket - 2)
      count = arrays if isinstance(arrays, jax.Array) else 3
      token_BL = jnp.pad(jnp.array([[0, 1], [1, 1], [2, 2]]), size)
      weight_BL = jnp.pad(jnp.array([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0]]), size)
      weight_BL = weight_BL * (jnp.arange(batch_size) < count)[:, None]
      at = coords.consecutive(1, bucket)
      return Batch(token_BL, jnp.ones_like(token_BL), weight_BL, at)

  class Copy:
    def apply(self, variables, token_BL, *rest):
      return 5.0 * jax.nn.one_hot(token_BL, 4)

  evaluator = Evaluator(Copy(), Some(), 8, 4)
  score = jax.jit(lambda count: one_program.scores(evaluator, {}, count, None, 2))
  scores, examples, *_ = score(jnp.int32(3))
  assert examples == 2
  assert scores["accuracy", "mean"] == (0.5 + 1) / 2
  assert scores["exact_match", "mean"] == 0.5
  assert np.isfinite(scores["bits_per_byte", "last_quarter"])
  scores, examples, *_ = score(jnp.int32(1))
  assert (examples, scores["accuracy", "mean"]) == (1, 0.5)
