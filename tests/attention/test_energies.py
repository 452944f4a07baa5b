"""Additive scores by products of exponentials: as sums of tanh, near and far."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer_jax.attention.variants.additive import FAR, energies

L, M, K = 5, 7, 3
# Largest queries and keys: of a model, of one that saturates, and past exponentials.
SIZES = {
  "near": (2, 2),
  "saturated": (0.9 * FAR, 0.9 * FAR),
  "past": (3 * FAR, 3 * FAR),
}


def sums(q_LK, k_MK, energy_K):
  """The paper's equation, of all pairs and features."""
  return jnp.tanh(q_LK[:, None] + k_MK[None]) @ energy_K


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_energies_are_sums_of_tanh(sizes):
  random = np.random.default_rng(0)
  q_LK, k_MK = (
    np.float32(size * random.uniform(-1, 1, (n, K)))
    for size, n in zip(sizes, (L, M), strict=True)
  )
  k_MK[:2] = -q_LK[:2]  # far from zero, yet their sums are not
  energy_K, d_LM = (np.float32(random.normal(size=x)) for x in (K, (L, M)))
  found, pull = jax.vjp(energies, q_LK, k_MK, energy_K)
  expected, pull_expected = jax.vjp(sums, q_LK, k_MK, energy_K)
  np.testing.assert_allclose(found, expected, atol=2e-6)
  for got, want in zip(pull(d_LM), pull_expected(d_LM), strict=True):
    np.testing.assert_allclose(got, want, atol=2e-5)


def test_heads_and_texts_take_one_branch():
  vectors = jnp.ones((2, 4, L, K)), jnp.ones((2, 4, M, K)), jnp.ones((2, 4, K))
  program = jax.make_jaxpr(jax.vmap(jax.vmap(energies)))(*vectors)
  assert "cond[" in str(program)
