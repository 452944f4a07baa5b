"""The contract that an encoding inherits by being registered.

Every registered encoding meets every core and every kind of coordinates here; the
contract is in experiments/contract, where that of one's own classes is run too. A
formula can still be wrong: see test_references.py.
"""

import jax.numpy as jnp
import pytest

from experiments.contract.encoding import *  # noqa: F403, the tests themselves
from experiments.contract.harness import *  # noqa: F403, which other tests use
from transformer_jax.positions import positions


@pytest.fixture(params=sorted(positions))
def encoding(request):
  return positions.build(request.param)


@pytest.mark.parametrize("causal", [True, False])
def test_t5_splits_buckets_only_when_it_looks_both_ways(causal):
  t5 = positions.build(f"t5(causal={causal})")
  table = {"table_HN": jnp.arange(32.0)}
  bias = t5.bias(table, jnp.array([5]), jnp.array([3, 5, 7]))
  assert bias.tolist() == [[2, 0, 0 if causal else 18]]
