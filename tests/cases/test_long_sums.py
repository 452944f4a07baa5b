"""Sums along texts of 131 072 tokens, of which encodings read differences.

Reported: the weights of `forgetting` were 1.1% off there, as float32 has steps of 1/128
near such sums. Right: what float64 gives, and gradients too.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer_jax.positions import Tile, coords, positions
from transformer_jax.positions.shared.sums import running, turns

L = 131_072


@pytest.fixture
def random():
  """Numbers that do not depend on the tests before."""
  return np.random.default_rng(0)


def tile(q_at, k_at, queries, s_shape):
  """Returns what some queries see of all keys, with nothing but token data."""
  cut = {n: x[0][queries] for n, x in q_at.items()}
  zero = jnp.zeros((len(queries), 2))
  place = jnp.zeros(len(queries)), jnp.zeros(L)
  seen = jnp.arange(L) <= queries[:, None]
  keys = {n: x[0] for n, x in k_at.items()}
  return Tile(zero, jnp.zeros((L, 2)), *place, seen, cut, keys, 1.0)


@pytest.mark.parametrize("per_token", [0.7, 20.0])
def test_forgetting_keeps_its_digits(per_token, random):
  log_gate = -per_token * random.uniform(0.5, 1.5, (1, L, 1)).astype(np.float32)
  forgetting = positions.build("forgetting")
  at = coords.consecutive(1, L)
  sums = jax.jit(forgetting.accumulate)({}, {"kept_BLH": log_gate}, at)
  sums = {name: x[..., 0] for name, x in sums.items()}
  queries = np.array([1, 1000, L // 2, L - 1])
  score = random.normal(size=(4, L)).astype(np.float32)
  got = np.asarray(forgetting.score({}, score, tile(sums, sums, queries, None)))
  exact = np.cumsum(log_gate[0, :, 0].astype(np.float64))
  for n, query in enumerate(queries):
    near = slice(max(0, query - 100), query + 1)  # what has any weight
    want = score[n] + (exact[query] - exact)
    # Inside of a block of 128 tokens sums are plain float32.
    rounded = 128 * 1.5 * per_token * 2.0**-24
    np.testing.assert_allclose(got[n, near], want[near], rtol=1e-5, atol=2e-5 + rounded)
    far = slice(0, query + 1)
    np.testing.assert_allclose(got[n, far], want[far], rtol=1e-5, atol=1e-4)


def test_running_sums_and_their_gradients_are_those_of_float64(random):
  x = random.uniform(0, 1, (2, L - 7, 1)).astype(np.float32)
  high, low = jax.jit(running)(x)
  exact = np.cumsum(x.astype(np.float64), axis=1)
  found = np.asarray(high, np.float64) + np.asarray(low, np.float64)
  np.testing.assert_allclose(found, exact, atol=2e-5)
  assert np.abs(np.cumsum(x, axis=1) - exact).max() > 100 * np.abs(found - exact).max()

  d = random.normal(size=x.shape).astype(np.float32)
  # Of a constant, XLA would compute sums itself, for seconds.
  pull = jax.jit(lambda x, d: jax.vjp(lambda x: sum(running(x)), x)[1](d)[0])
  exact = np.cumsum(d[:, ::-1].astype(np.float64), axis=1)[:, ::-1]
  np.testing.assert_allclose(pull(x, d), exact, atol=1e-4)


def test_a_text_of_one_block_is_summed_up_as_ever(random):
  x = random.normal(size=(1, 128, 3)).astype(np.float32)
  high, low = running(x)
  np.testing.assert_array_equal(high, jnp.cumsum(x, axis=1))
  assert not np.any(low)


def test_angles_lose_whole_turns_and_nothing_else(random):
  angle = np.concatenate([[0.0, 100, 127.9], random.uniform(-4e5, 4e5, 1000)])
  high = angle.astype(np.float32)
  low = (angle - high).astype(np.float32)
  got = np.asarray(turns(high, low), np.float64)
  small = np.abs(high) < 128
  np.testing.assert_array_equal(got[small], high[small])
  assert np.abs(got[~small]).max() < 3.2
  np.testing.assert_allclose(np.exp(1j * got), np.exp(1j * angle), atol=1e-5)
  assert np.all(jax.grad(lambda x: turns(x, low).sum())(high) == 1)


def summed(spec, name, x):
  """Returns angles at the end of a long text, by the encoding's own sum."""
  encoding = positions.build(spec)
  at = coords.consecutive(1, L)
  params = {"power_R": jnp.arange(1.0, 3.0), "mix_HRN": jnp.ones((1, 2, 1))}
  data = {name: x, "gate_BLH": jnp.ones((1, L, 1))}
  return jax.jit(encoding.accumulate)(params, data, at)


def test_carope_and_selective_rope_turn_by_the_true_angle(random):
  rate = random.uniform(0.3, 1.0, (1, L, 1)).astype(np.float32)
  got = summed("carope", "rate_BLH", rate)["angle_BLHR"][0, :, 0]
  rates = rate[0].astype(np.float64) ** [1, 2]
  want = np.cumsum(rates, axis=0)
  np.testing.assert_allclose(np.exp(1j * np.float64(got)), np.exp(1j * want), atol=1e-3)

  step = random.uniform(0.0, 1.0, (1, L, 1, 2)).astype(np.float32)
  got = summed("selective_rope", "step_BLHR", step)["angle_BLHR"][0, :, 0]
  steps = step[0, :, 0].astype(np.float64) * 500_000.0 ** -np.array([0, 0.5])
  want = np.cumsum(steps, axis=0)
  np.testing.assert_allclose(np.exp(1j * np.float64(got)), np.exp(1j * want), atol=1e-3)


def test_grape_m_counts_the_tokens_before(random):
  count = random.uniform(0, 1, (1, L)).astype(np.float32)
  got = summed("grape_m(contextual=True)", "count_BL", count)
  want = np.cumsum(count[0].astype(np.float64)) - count[0]
  found = sum(np.asarray(got[name][0], np.float64) for name in got)
  np.testing.assert_allclose(found, want, atol=2e-5)


def test_sums_from_the_query_backwards_need_no_more_digits(random):
  """cope and grape_ap sum from each query on: what is near is a small sum."""
  gate = random.normal(size=(1, 2, L)).astype(np.float32)
  queries = np.array([200, L - 1])
  seen = jnp.arange(L) <= queries[:, None]
  q_HLK = jnp.ones((1, 2, 2))
  at = jnp.zeros(2), jnp.zeros(L)
  table = jnp.arange(64.0)[:, None] * jnp.array([1.0, 0.0])
  view = Tile(q_HLK, jnp.zeros((1, L, 2)), *at, seen, {}, {}, 1.0)
  scores = jax.jit(positions.build("cope").full_scores)
  got = np.asarray(scores({"table_NK": table}, gate, view)) - gate
  for n, query in enumerate(queries):
    open_M = 1 / (1 + np.exp(-gate[0, n, : query + 1].astype(np.float64)))
    want = np.minimum(np.cumsum(open_M[::-1])[::-1], 63)  # the table reads the count
    np.testing.assert_allclose(got[0, n, : query + 1], want, atol=2e-4)
