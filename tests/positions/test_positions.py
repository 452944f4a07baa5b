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
from transformer_jax.positions import positions
from transformer_jax.positions.base import HOOKS

# Hooks that act before a core is called: it gets vectors and coordinates.
BEFORE = {"borrow", "assign_positions", "embed", "rotate", "transform_qk"}
BEFORE |= {"token_data", "accumulate"}


def hooks_of(encoding):
  return tuple(hook for hook in HOOKS if encoding.overrides(hook))


def core_class(encoding):
  """Returns how a core meets an encoding: hooks, learned or not, shared biases."""
  hooks = hooks_of(encoding)
  if BEFORE.issuperset(hooks):
    # Rotated vectors are vectors; positions of other steps make other tiles.
    return "rotate" in hooks, "assign_positions" in hooks
  shapes = jax.eval_shape(lambda: encoding.init(jax.random.key(0), DIMS))
  return hooks, bool(shapes), encoding.relative


ENCODINGS = {name: positions.build(name) for name in sorted(positions)}
# The first of each class stands for it in the quick tests that compile a program.
FIRST = {hooks_of(e): name for name, e in reversed(ENCODINGS.items())}.values()
MET_BY_CORES = {core_class(e): name for name, e in reversed(ENCODINGS.items())}.values()
CELLS = [
  pytest.param(name, marks=() if quick else pytest.mark.slow)
  for name, encoding in ENCODINGS.items()
  for quick in [name in MET_BY_CORES or not encoding.tile_local]
]
# Casts are each formula's own; rotations share theirs, and vectors are only added.
FORMULAS = {"bias", "score", "full_scores", "values"}
CASTING = {name for name, e in ENCODINGS.items() if FORMULAS.intersection(hooks_of(e))}
CASTING |= {*FIRST, "pope", "xpos"}
FOR_EACH_CLASS = {
  "test_attention_that_looks_both_ways_is_defined_or_refused",
  "test_decoding_on_the_cache_equals_one_pass_for_every_seed",
}


def pytest_generate_tests(metafunc):
  """Every test meets every encoding; some, quickly, the first of each class."""
  name, names = metafunc.function.__name__, metafunc.fixturenames
  if (
    "encoding" in names
    and name != "test_every_core_gives_the_dense_answer_and_gradients"
  ):
    quick = FIRST if name in FOR_EACH_CLASS else ENCODINGS
    quick = CASTING if name == "test_bfloat16_stays_within_its_epsilon" else quick
    each = [
      pytest.param(name, marks=() if name in quick else pytest.mark.slow)
      for name in ENCODINGS
    ]
    metafunc.parametrize("encoding", each, indirect=True, scope="module")


@pytest.fixture(scope="module")
def encoding(request):
  return ENCODINGS[request.param]


@pytest.mark.parametrize("encoding", CELLS, indirect=True, scope="module")
def test_every_core_gives_the_dense_answer_and_gradients(encoding):
  compare_cores(encoding, MODES)


def test_attention_that_looks_both_ways_is_defined_or_refused(encoding):
  compared = encoding in [ENCODINGS[name] for name in MET_BY_CORES]
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
