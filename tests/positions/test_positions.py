"""The contract that an encoding inherits by being registered.

Every registered encoding meets every core and every kind of coordinates here; the
contract is in experiments/contract, where that of one's own classes is run too. A
formula can still be wrong: see test_references.py.
"""

import jax
import jax.numpy as jnp
import pytest
from representatives import representatives

from experiments.contract.encoding import *  # noqa: F403, the tests themselves
from experiments.contract.encoding import looks_both_ways_or_is_refused
from experiments.contract.harness import *  # noqa: F403, which other tests use
from experiments.contract.harness import DIMS, MODES, compare_cores
from transformer_jax.positions import positions
from transformer_jax.positions.base import HOOKS


def hooks_of(encoding):
  return tuple(hook for hook in HOOKS if encoding.overrides(hook))


def features_of(encoding):
  """Returns what code elsewhere can tell encodings apart by: hooks and declarations."""
  learned = bool(jax.eval_shape(lambda: encoding.init(jax.random.key(0), DIMS)))
  hooks = hooks_of(encoding)
  found = {*hooks} | {("ids", bool(encoding.ids)), ("learned", learned)}
  found |= {(name, getattr(encoding, name)) for name in DECLARED}
  found.add(("ends", encoding.num_positions(DIMS) is not None))
  if "bias" in hooks:
    found.add(("bias", learned, encoding.relative))
  return found


def core_features_of(encoding):
  """Returns how a core meets an encoding; rotated vectors are vectors to it."""
  hooks = {*hooks_of(encoding)} - {"rotate", "embed"}
  return hooks | {x for x in features_of(encoding) if x[0] == "bias" and x != "bias"}


DECLARED = "relative", "needs_full_text", "centred", "tile_local"
ENCODINGS = {name: positions.build(name) for name in sorted(positions)}
# They stand for the others in the quick tests that compile a program. Each encoding is
# compared with its paper in test_references.py, and probed in test_probe.py.
FEW = representatives({name: features_of(e) for name, e in ENCODINGS.items()})
MET_BY_CORES = representatives({n: core_features_of(ENCODINGS[n]) for n in FEW})
CELLS = [
  pytest.param(name, marks=() if name in MET_BY_CORES else pytest.mark.slow)
  for name in ENCODINGS
]
# These compile nothing.
FOR_EACH = {
  "test_parameters_have_the_axes_of_their_names",
  "test_a_mesh_can_split_the_parameters_by_their_names",
  "test_randomized_positions_are_sorted_distinct_and_shared",
}


def pytest_generate_tests(metafunc):
  """Every test meets every encoding; those that compile, quickly, a few of them."""
  name, names = metafunc.function.__name__, metafunc.fixturenames
  if (
    "encoding" in names
    and name != "test_every_core_gives_the_dense_answer_and_gradients"
  ):
    quick = ENCODINGS if name in FOR_EACH else FEW
    # Sums along a text leave out what is no token.
    summed = name == "test_packed_and_padded_rows_equal_the_texts_alone"
    quick = [*quick, "forgetting"] if summed else quick
    each = [
      pytest.param(name, marks=() if name in quick else pytest.mark.slow)
      for name in ENCODINGS
    ]
    metafunc.parametrize("encoding", each, indirect=True, scope="module")


@pytest.fixture(scope="module")
def encoding(request):
  return ENCODINGS[request.param]


@pytest.mark.parametrize("encoding", CELLS, indirect=True, scope="module")
@pytest.mark.parametrize("at_once", [False, True])
def test_every_core_gives_the_dense_answer_and_gradients(encoding, at_once):
  compare_cores(encoding, MODES, f"blockwise(block=7, at_once={at_once})")


def test_attention_that_looks_both_ways_is_defined_or_refused(encoding):
  # In tiles it is other masks and other distances, which are the same code for all.
  compared = encoding in [ENCODINGS[name] for name in ("alibi", "shaw")]
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
