"""Sequential operations: small programs by hand, and models by length."""

import jax
import jax.numpy as jnp
import pytest

from experiments.configs import base
from experiments.runner.build import build
from experiments.setup.validate import resolve
from transformer_jax.analysis.sequential_operations import sequential_operations

X_L, HALF = jnp.ones(10), jnp.float32(0.5)


def carried(h, x):
  return jnp.sin(jnp.cos(h)) * x, h


def free(h, x):
  return h, jnp.sin(jnp.cos(x))


PROGRAMS = {
  "a chain": (lambda x: jnp.sin(jnp.cos(x)), 2),
  "side by side": (lambda x: (jnp.sin(x), jnp.cos(x)), 1),
  "the longer side": (lambda x: jnp.sin(jnp.cos(x)) + jnp.tan(x), 3),
  "nothing": (lambda x: x, 0),
  "iterations that wait": (lambda x: jax.lax.scan(carried, HALF, x), 30),
  "iterations that do not": (lambda x: jax.lax.scan(free, HALF, x), 2),
  "an unrolled loop": (lambda x: jax.lax.scan(carried, HALF, x, unroll=10), 30),
  "from the right": (lambda x: jax.lax.scan(carried, HALF, x, reverse=True), 30),
  "a jitted function": (lambda x: jax.jit(jnp.sin)(jnp.cos(x)), 2),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_are_counted_as_by_hand(name):
  function, expected = PROGRAMS[name]
  assert sequential_operations(function, X_L) == expected


def test_a_branch_counts_as_the_longer_one():
  def either(x, yes):
    return jax.lax.cond(yes, jnp.sin, lambda x: jnp.sin(jnp.cos(x)), x)

  found = sequential_operations(either, HALF, True)
  assert found == 2


def test_a_loop_that_data_end_is_refused():
  def until(x):
    return jax.lax.while_loop(lambda y: y < 9, lambda y: y + 1, x)

  with pytest.raises(ValueError, match="cannot be counted"):
    sequential_operations(until, 1.0)


def chain(family, L, **more):
  """Returns the sequential operations of a training step."""
  config = {
    "task": "copy",
    "model.family": family,
    "model.position": "none",
    "model.core": "dense",
    "train.length": L,
    "train.batch_size": 2,
  }
  trainer = build(resolve(base.get_config(), config | more)).trainer
  state = trainer.shapes
  batch = jax.eval_shape(lambda state: trainer.batch((), state), state)
  return sequential_operations(trainer.step, state, batch)


@pytest.mark.parametrize("cell", ["elman", "lstm", "gru"])
def test_recurrent_models_wait_for_each_token_and_a_transformer_does_not(cell):
  counts = [chain(f"recurrent(cell={cell!r})", L) for L in (8, 16, 32)]
  first, second = counts[1] - counts[0], counts[2] - counts[1]
  assert second == 2 * first > 2 * 8  # so many operations for each token
  if cell == "elman":
    assert chain("transformer", 8) == chain("transformer", 32)
