"""Products that decay by feature, against sums over all pairs of tokens in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer_jax.positions.shared.decayed_products import decayed_products

T, K = 150, 4  # tokens of a text, features
MEMORY = {"slow": 1e-3, "fast": 3.0, "abrupt": 200.0}  # mean logarithm of a decay
PARTS = {
  "the whole": ((0, T), (0, T)),
  "earlier keys": ((64, 128), (0, 64)),
  "keys around": ((40, 140), (30, 90)),
  "few keys": ((10, 60), (37, 45)),
  "later keys": ((0, 32), (100, 140)),
}


def all_pairs(q_TK, k_TK, sum_TK, d_TT):
  """Returns scores and gradients: a pair decays after the key, up to the query."""
  past_TT1 = np.tri(T)[..., None]
  log_TTK = np.where(past_TT1, sum_TK[:, None] - sum_TK[None], 0.0)
  decay_TTK = past_TT1 * np.exp(log_TTK)
  d_TTK = decay_TTK * d_TT[..., None]
  d_q_TK, d_k_TK = (
    np.einsum(x, d_TTK, y) for x, y in (("ijk,jk->ik", k_TK), ("ijk,ik->jk", q_TK))
  )
  through_TTK = d_TTK * q_TK[:, None] * k_TK
  d_sum_TK = through_TTK.sum(1) - through_TTK.sum(0)
  s_TT = np.einsum("ijk,ik,jk->ij", decay_TTK, q_TK, k_TK)
  return s_TT, d_q_TK, d_k_TK, d_sum_TK


@functools.partial(jax.jit, static_argnums=(0, 1))
def ours(queries, keys, q_TK, k_TK, high_TK, low_TK, d_LM):
  def part(q_TK, k_TK, high_TK):
    sums = high_TK, low_TK
    q_sums, k_sums = (tuple(x[slice(*at)] for x in sums) for at in (queries, keys))
    vectors = q_TK[slice(*queries)], k_TK[slice(*keys)]
    return decayed_products(*vectors, q_sums, k_sums, jnp.int32(queries[0] - keys[0]))

  s_LM, pull = jax.vjp(part, q_TK, k_TK, high_TK)
  return s_LM, *pull(d_LM)


@pytest.mark.parametrize("memory", MEMORY.values(), ids=MEMORY)
@pytest.mark.parametrize("queries,keys", PARTS.values(), ids=PARTS)
def test_values_and_gradients_are_those_of_all_pairs(queries, keys, memory):
  random = np.random.default_rng(0)
  q, k = random.normal(size=(2, T, K))
  log = -memory * random.exponential(size=(T, K)) * random.integers(0, 2, (T, K))
  sums = np.cumsum(log, axis=0)
  part, d_TT = np.zeros((T, T)), np.tri(T) * random.normal(size=(T, T))
  part[slice(*queries), slice(*keys)] = 1.0
  d_TT *= part
  s_TT, *grads = all_pairs(q, k, sums, d_TT)

  def here(x_TT):
    return x_TT[slice(*queries), slice(*keys)]

  low = sums - np.float32(sums)
  given = map(jnp.float32, (q, k, sums, low, here(d_TT)))
  s_LM, *found = ours(queries, keys, *given)
  assert np.isfinite(s_LM).all()
  np.testing.assert_allclose(s_LM * here(np.tri(T)), here(s_TT), atol=1e-5)
  for expected, got in zip(grads, found, strict=True):
    np.testing.assert_allclose(got, expected, atol=1e-4)
