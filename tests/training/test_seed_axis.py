"""Seeds over devices: no traffic between them, and the numbers of one device."""

import functools
import re

import jax
import numpy as np
import pytest
from test_training import close, trainer

from transformer_jax.data.base import tasks
from transformer_jax.evaluation.lengths import Evaluator
from transformer_jax.training import dispatch, sharding

COLLECTIVE = re.compile(
  r"all-reduce|all-gather|reduce-scatter|all-to-all|collective|\bsend\b|\brecv\b"
)
SEEDS = (10, 4, 7, 2)


def groups(text):
  """Yields the groups of devices that exchange something in a compiled program."""
  for match in re.finditer(r"(?:replica_groups|source_target_pairs)=(\S+)(.*)", text):
    word, rest = match.groups()
    if word.startswith("{{"):
      for group in re.findall(r"{([\d,]+)}", word):
        yield [int(n) for n in group.split(",")]
    elif word.startswith("mesh["):  # names of its axes, and those of a group
      sizes = [int(n) for n in re.findall(r"=(\d+)", word)]
      within = [int(n) for n in re.findall(r"'axis_(\d+)'", rest.partition("}")[0])]
      others = [n for n in range(len(sizes)) if n not in within]
      ids = np.arange(np.prod(sizes)).reshape(sizes).transpose(*others, *within)
      yield from ids.reshape(-1, np.prod([sizes[n] for n in within])).tolist()
    else:
      shape, sizes, order = re.match(
        r"\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", word
      ).groups()
      shape, sizes = ([int(n) for n in x.split(",")] for x in (shape, sizes))
      ids = np.arange(np.prod(sizes)).reshape(sizes)
      ids = ids.transpose([int(n) for n in order.split(",")]) if order else ids
      yield from ids.reshape(shape).tolist()


@functools.cache
def trained(seeds=SEEDS, **mesh):
  """Returns the program of a mesh, with the state and metrics after four steps."""
  mesh = sharding.make_mesh(**mesh)
  program = dispatch.compile_steps(trainer(), seeds, (), mesh, 4)
  return program, *program((), program.init())


def test_seeds_on_devices_of_their_own_exchange_nothing():
  program, state, metrics = trained(seed=4)
  assert program.together == 4
  assert not COLLECTIVE.findall(program.run.as_text())
  for x in jax.tree.leaves((state, metrics)):
    assert {shard.data.shape[0] for shard in x.addressable_shards} == {1}


def test_devices_of_a_seed_exchange_nothing_with_those_of_another():
  program, state, _ = trained(SEEDS[:2], seed=2, data=2, tensor=2)
  _, want, _ = trained(SEEDS[:2])
  exchanging = [*groups(program.run.as_text())]
  assert len(exchanging) > 8
  assert {len({n // 4 for n in group}) for group in exchanging} == {1}, exchanging
  close(state.params, want.params)


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
