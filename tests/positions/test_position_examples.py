"""Examples in the docstrings of main classes run."""

import doctest

import pytest

from transformer_jax import axes, forwarding
from transformer_jax.attention.variants import base as variants
from transformer_jax.positions import base as encodings
from transformer_jax.positions import coords


@pytest.mark.parametrize("module", [axes, forwarding, coords, encodings, variants])
def test_examples_run(module):
  failed, tried = doctest.testmod(module)
  assert tried and not failed
