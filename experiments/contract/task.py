"""Contract of a task: pure in the key, vmap over seeds, one program for all lengths.

A user's task is tested by `python -m experiments.check my_file:MyTask`; that its
solutions are correct is for its own tests.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from experiments.contract.harness import programs
from transformer_jax.data.base import Task, target_places
from transformer_jax.data.task_probe import LENGTH, ROWS


@functools.cache
def arrays(task):
  """Returns the arrays of a task's data."""
  return jax.tree.map(jnp.asarray, task.load()[0])


@functools.partial(jax.jit, static_argnums=0)
def drawn(task, given, key):
  return task.batch(given, key, ROWS, LENGTH, 1.0)


@functools.partial(jax.jit, static_argnums=0)
def scored(task, given, length):
  return task.score(given, jax.random.key(0), ROWS, length, LENGTH)


def same(a, b):
  return all(jax.tree.leaves(jax.tree.map(np.array_equal, a, b)))


def test_a_batch_is_pure_in_the_key(task):
  first, again, other = (
    drawn(task, arrays(task), jax.random.key(seed)) for seed in (0, 0, 1)
  )
  assert same(first, again), "the same key draws another batch"
  assert not same(first, other), "another key draws the same batch"


def test_seeds_vmap(task):
  keys = jax.vmap(jax.random.key)(np.arange(2))
  both = jax.vmap(lambda key: drawn(task, arrays(task), key).target_BL)(keys)
  for n, key in enumerate(keys):
    alone = drawn(task, arrays(task), key).target_BL
    np.testing.assert_array_equal(both[n], alone)


def test_one_program_scores_every_length(task):
  scored(task, arrays(task), LENGTH)
  compiled = programs(scored)
  for length in range(1, LENGTH):
    batch = scored(task, arrays(task), length)
    assert np.any(batch.weight_BL), f"nothing is scored at length {length}"
  assert programs(scored) == compiled, "each length compiles a program of its own"


def test_no_place_before_the_declared_ones_counts(task):
  last = target_places(task, LENGTH)
  for length in range(1, LENGTH + 1):
    weight_BL = np.asarray(scored(task, arrays(task), length).weight_BL)
    before_BL = weight_BL[:, : weight_BL.shape[1] - last] if last else weight_BL[:, :0]
    assert not before_BL.any(), f"target_places({LENGTH}) is {last}; more places count"


def test_predictions_that_count_have_a_target(task):
  outputs = task.classes or task.vocabulary
  for batch in (drawn(task, arrays(task), jax.random.key(0)),):
    counted = np.asarray(batch.target_BL)[np.asarray(batch.weight_BL) > 0]
    if task.target_numbers:
      assert counted.size and np.isfinite(counted).all()
      continue
    assert counted.size and counted.min() >= 0 and counted.max() < outputs


def test_a_task_is_a_value(task):
  assert isinstance(task, Task) and hash(task) == hash(task)
