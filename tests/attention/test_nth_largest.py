"""The n-th largest number of each row, against NumPy's sort."""

import jax
import numpy as np
import pytest

from transformer_jax.attention.variants.selection import FEW, nth_largest

M = 24
ROWS = {
  "numbers": lambda random: random.normal(size=(2, 3, 4, M)),
  "ties": lambda random: random.integers(-2, 3, (2, 3, 4, M)),
  "masked": lambda random: np.where(random.random((2, 3, 4, M)) < 0.6, -1e30, 1.0),
  "infinite": lambda random: np.where(random.random((2, 3, 4, M)) < 0.6, -np.inf, -2.0),
}


@pytest.mark.parametrize("n", [1, FEW, FEW + 1, M, M + 5])
@pytest.mark.parametrize("kind", ROWS)
def test_it_is_that_of_a_sorted_row(kind, n):
  x_BHLM = ROWS[kind](np.random.default_rng(0)).astype(np.float32)
  want_BHL1 = np.sort(x_BHLM, axis=-1)[..., -min(n, M), None]
  got_BHL1 = jax.jit(nth_largest, static_argnums=1)(x_BHLM, n)
  np.testing.assert_array_equal(got_BHL1, want_BHL1)
