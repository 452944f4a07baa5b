"""The contract that an encoding inherits by being registered.

Every registered encoding meets every core and every kind of coordinates here; the
contract is in experiments/contract, where that of one's own classes is run too. A
formula can still be wrong: see test_references.py.
"""

import jax
import jax.numpy as jnp
import pytest

from experiments.contract.encoding import *  # noqa: F403, the tests themselves
from experiments.contract.encoding import looks_both_ways_or_is_refused
from experiments.contract.harness import *  # noqa: F403, which other tests use
from experiments.contract.harness import DIMS, MODES, compare_cores
from transformer_jax.axes import axes_of
from transformer_jax.positions import positions
from transformer_jax.positions.base import HOOKS

# Hooks that act before a core is called: it gets vectors and coordinates.
BEFORE = {"borrow", "assign_positions", "embed", "rotate", "transform_qk"}
BEFORE |= {"token_data", "accumulate"}


def core_class(encoding):
  """Returns how a core meets an encoding: hooks, axes of parameters, shared biases."""
  hooks = tuple(hook for hook in HOOKS if encoding.overrides(hook))
  if BEFORE.issuperset(hooks):
    return hooks
  shapes = jax.eval_shape(lambda: encoding.init(jax.random.key(0), DIMS))
  return hooks, frozenset(map(axes_of, shapes)), encoding.relative


ENCODINGS = {name: positions.build(name) for name in sorted(positions)}
# The first that a core cannot tell from others stands for them in the quick tests.
FIRST = {core_class(e): name for name, e in reversed(ENCODINGS.items())}.values()
CELLS = [
  pytest.param(name, marks=() if quick else pytest.mark.slow)
  for name, encoding in ENCODINGS.items()
  for quick in [name in FIRST or not encoding.tile_local]
]


@pytest.fixture(scope="module", params=ENCODINGS)
def encoding(request):
  return ENCODINGS[request.param]


@pytest.mark.parametrize("encoding", CELLS, indirect=True, scope="module")
def test_every_core_gives_the_dense_answer_and_gradients(encoding):
  compare_cores(encoding, MODES)


def test_attention_that_looks_both_ways_is_defined_or_refused(encoding):
  compared = encoding in [ENCODINGS[name] for name in FIRST]
  looks_both_ways_or_is_refused(encoding, compared)


@pytest.mark.slow
def test_every_core_looks_both_ways(encoding):
  looks_both_ways_or_is_refused(encoding)


@pytest.mark.parametrize("causal", [True, False])
def test_t5_splits_buckets_only_when_it_looks_both_ways(causal):
  t5 = positions.build(f"t5(causal={causal})")
  table = {"table_HN": jnp.arange(32.0)}
  bias = t5.bias(table, jnp.array([5]), jnp.array([3, 5, 7]))
  assert bias.tolist() == [[2, 0, 0 if causal else 18]]
