"""Seeds over devices: no traffic between them, and the numbers of one device."""

import functools
import re

import jax
import numpy as np
import pytest
from test_training import close, trainer

from transformer_jax.data.base import tasks
from transformer_jax.evaluation.lengths import Evaluator
from transformer_jax.training import loop, sharding

COLLECTIVE = re.compile(
  r"all-reduce|all-gather|reduce-scatter|all-to-all|collective|\bsend\b|\brecv\b"
)
SEEDS = (10, 4, 7, 2)


@functools.cache
def trained(seeds=SEEDS, **mesh):
  """Returns the program of a mesh, with the state and metrics after four steps."""
  mesh = sharding.make_mesh(**mesh)
  program = loop.compile_steps(trainer(), seeds, (), mesh, 4)
  return program, *program((), program.init())


def test_seeds_on_devices_of_their_own_exchange_nothing():
  program, state, metrics = trained(seed=4)
  assert program.together == 4
  assert not COLLECTIVE.findall(program.run.as_text())
  for x in jax.tree.leaves((state, metrics)):
    assert {shard.data.shape[0] for shard in x.addressable_shards} == {1}


def test_seeds_on_devices_of_their_own_have_the_numbers_of_one_device():
  """Not bit for bit: XLA fuses the program of several devices in another order."""
  _, want, want_metrics = trained()
  _, got, got_metrics = trained(seed=4)
  close(got.params, want.params)
  close(got_metrics, want_metrics)


def test_a_seed_has_the_same_bits_whatever_seeds_are_on_the_other_devices():
  _, state, metrics = trained(seed=4)
  _, among_others, _ = trained((5, 10, 8, 6), seed=4)
  own, among_others = (
    jax.tree.map(lambda x: np.asarray(x)[n], tree)  # noqa: B023
    for n, tree in ((0, state.params), (1, among_others.params))
  )
  jax.tree.map(np.testing.assert_array_equal, own, among_others)


def test_seeds_that_the_devices_do_not_divide_are_trained_on_all_of_them():
  seeds = SEEDS[:3]  # as those that are added to a run later
  program, got, _ = trained(seeds, seed=2)
  _, want, _ = trained(seeds)
  assert program.together == 1
  close(got.params, want.params)


def test_devices_score_their_own_seeds():
  (_, want, _), (_, got, _) = trained(), trained(seed=4)
  task, mesh = tasks.build("copy(symbols=2)"), sharding.make_mesh(seed=4)
  one = Evaluator(trainer().model, task, examples=4, batch_size=2)
  wanted = one.run(jax.device_get(want.params), (), (2,))
  with jax.set_mesh(mesh):
    one.check(got.params, (), (2,))
    rows = one.run(got.params, (), (2,))
    program = one.program(2).lower(got.params, (), np.int32(2)).compile()
  assert not COLLECTIVE.findall(program.as_text())
  for row, other in zip(rows, wanted, strict=True):
    assert row["value"] == pytest.approx(other["value"], rel=1e-4)
    assert row | {"value": 0} == other | {"value": 0}
