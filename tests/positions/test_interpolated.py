"""Matches of counts between whole numbers, against two lookups and JAX's gradient."""

import jax
import jax.numpy as jnp
import numpy as np

from transformer_jax.positions.cope import interpolated

B, H, L, M, N = 2, 3, 4, 6, 5


def lookups(match_HLN, count_HLM):
  """CoPE's equation: a mixture of the matches below and above."""
  below_HLM, above_HLM = jnp.floor(count_HLM), jnp.ceil(count_HLM)

  def find(n_HLM):
    return jnp.take_along_axis(match_HLN, n_HLM.astype(jnp.int32), axis=2)

  share_HLM = count_HLM - below_HLM
  return share_HLM * find(above_HLM) + (1 - share_HLM) * find(below_HLM)


def test_values_and_gradients_are_those_of_two_lookups():
  random = np.random.default_rng(0)
  match_BHLN = np.float32(random.normal(size=(B, H, L, N)))
  count_BHLM = np.float32(random.uniform(0, N - 1, (B, H, L, M)))
  count_BHLM[..., 0], count_BHLM[..., 1], count_BHLM[..., 2] = 0, N - 1, 2
  d_BHLM = np.float32(random.normal(size=count_BHLM.shape))
  found = []
  for function in (interpolated, lookups):
    out, pull = jax.vjp(jax.vmap(function), match_BHLN, count_BHLM)
    found.append((out, *pull(d_BHLM)))
  for got, want in zip(*found, strict=True):
    np.testing.assert_allclose(got, want, atol=2e-6)
