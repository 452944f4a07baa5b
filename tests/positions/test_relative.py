"""Vectors of the distance in tiles: two ways, both against loops over pairs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from interpreted import interpreted

from transformer_jax.attention.cores import cores
from transformer_jax.axes import Dims
from transformer_jax.positions import bind, coords, positions
from transformer_jax.positions.shared import relative

L, M, K, N, H = 5, 7, 3, 6, 2
CLIPPED = lambda back: jnp.clip(back + 2, 0, N - 1)
AT = {
  "counting": (np.arange(L) + 4, np.arange(M) + 2),
  "far": (np.arange(L) + 400, np.arange(M)),
  "ahead": (np.arange(L), np.arange(M) + 3),
  "packed": (np.array([3, 4, 0, 1, 2]), np.arange(M)),
  "gaps": (np.arange(L), np.array([0, 2, 3, 5, 6, 8, 9])),
  "padded": (np.array([0, 1, 2, 2, 2]), np.array([0, 0, 0, 1, 2, 3, 4])),
}
COUNTING = {"counting", "far", "ahead"}


def numbers(*shape, seed=0):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


VECTORS, X, D = numbers(H, N, K), numbers(H, L, K, seed=1), numbers(H, L, M, seed=2)


def loops(pos_L, pos_M):
  """Returns what is found, and gradients of its sum with D, pair by pair."""
  found, d_vectors, d_x = np.zeros((H, L, M)), np.zeros((H, N, K)), np.zeros((H, L, K))
  for h, i, j in np.ndindex(H, L, M):
    row = min(max(pos_L[i] - pos_M[j] + 2, 0), N - 1)
    found[h, i, j] = X[h, i] @ VECTORS[h, row]
    d_vectors[h, row] += D[h, i, j] * X[h, i]
    d_x[h, i] += D[h, i, j] * VECTORS[h, row]
  return found, d_vectors, d_x


@functools.partial(jax.jit, static_argnums=0)
def by(way, pos_L, pos_M):
  heads = jax.vmap(lambda v, x: way(CLIPPED, v, x, pos_L, pos_M))
  found, pull = jax.vjp(heads, VECTORS, X)
  return found, *pull(jnp.asarray(D))


@pytest.mark.parametrize("way", [relative.match, relative.lookup])
def test_both_ways_find_what_loops_find(way):
  for at in AT.values():
    for got, want in zip(by(way, *at), loops(*at), strict=True):
      np.testing.assert_allclose(got, want, atol=1e-5)


def near(table_NK, x_LK, pos_L, pos_M):
  """Returns what `relative.near` gives with distance 0 in row 3, and nan elsewhere."""
  beyond = lambda: jnp.full((len(pos_L), len(pos_M)), jnp.nan)
  return relative.near(table_NK, jnp.array(3), x_LK, pos_L, pos_M, beyond)


@jax.jit
def near_with_gradients(pos_L, pos_M):
  found_LM, pull = jax.vjp(lambda *given: near(*given, pos_L, pos_M), VECTORS[0], XS)
  return found_LM, *pull(jnp.asarray(DS))


XS, DS = X[0, :2], D[0, :2, :3]  # two queries and three keys


@pytest.mark.parametrize("first", [(0, 0), (4, 3), (5, 3)])
def test_a_window_of_the_table_is_that_of_the_tile(first):
  """Tiles of other texts and blocks start at other rows of it."""
  at = first[0] + np.arange(2), first[1] + np.arange(3)
  found, d_table, d_x = np.zeros((2, 3)), np.zeros((N, K)), np.zeros((2, K))
  for i, j in np.ndindex(2, 3):
    row = 3 - (at[0][i] - at[1][j])
    found[i, j] = XS[i] @ VECTORS[0, row]
    d_table[row] += DS[i, j] * XS[i]
    d_x[i] += DS[i, j] * VECTORS[0, row]
  for got, want in zip(near_with_gradients(*at), (found, d_table, d_x), strict=True):
    np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize(
  "at", [([0, 1], [0, 2, 3]), ([9, 10], [0, 1, 2]), ([0, 1], [3, 4, 5])]
)
def test_gaps_and_distances_beyond_the_table_are_looked_up_otherwise(at):
  assert np.isnan(near_with_gradients(*map(np.array, at))[0]).all()


def test_positions_that_count_are_told_from_others():
  assert {name for name, at in AT.items() if relative.runs_on(*at)} == COUNTING


def test_a_batch_and_heads_still_branch():
  """A predicate for each row would compute both ways, and select."""
  way = lambda v, x, at: relative.match(CLIPPED, v, x, *at)
  every = jax.vmap(jax.vmap(way, (0, 0, None)), (None, None, 0))
  at = tuple(np.stack([x, x + 1]) for x in AT["counting"])
  text = jax.jit(every).lower(VECTORS, X, at).as_text()
  assert "stablehlo.case" in text
  got = jax.jit(every)(VECTORS, X, at)
  np.testing.assert_allclose(got[1], loops(*AT["counting"])[0], atol=1e-5)


@pytest.mark.parametrize(("L", "M"), [(5, 7), (7, 5), (1, 7), (5, 1), (1, 1)])
def test_shear_and_back(L, M):
  """One query, too: a step of a decoder."""
  match_LN, tile_LM = numbers(L, L + M - 1), numbers(L, M)
  back_LN = interpreted(relative.unshear)(tile_LM)
  tile = interpreted(relative.shear)(match_LN)
  for i, n in np.ndindex(L, L + M - 1):
    j = n - (L - 1 - i)
    assert back_LN[i, n] == (tile_LM[i, j] if 0 <= j < M else 0)
    assert not 0 <= j < M or tile[i, j] == match_LN[i, n]


SPECS = ["deberta(max_distance=3)", "transformer_xl", "tupe"]
SPECS.append("music_transformer(max_distance=6)")


# Quickly: the contract has the others in blocks of 7, and `near` is tried above.
@pytest.mark.slow
@pytest.mark.parametrize("spec", SPECS)
def test_tiles_give_the_definition_and_all_gradients(spec):
  """Some blocks count on, and some hold the seam of two texts or padding."""
  encoding, length = positions.build(spec), 14
  dims = Dims(V=2, D=8, H=2, F=1, L=length, K=4)
  moved = lambda x: x + 0.3 * numbers(*x.shape, seed=3)
  params = jax.tree.map(moved, encoding.init(jax.random.key(0), dims))
  q, k, v, d = (numbers(2, length, 2, 4, seed=seed) for seed in range(4))
  segment_BL = np.ones((2, length), np.int32)
  segment_BL[0, 10:], segment_BL[1, :2] = 2, 0
  at = coords.packed(jnp.asarray(segment_BL))

  @functools.partial(jax.jit, static_argnums=0)
  def run(core, *args):
    def forward(q, k, v, params):
      position = bind(encoding, params, dims)
      return cores.build(core)(q, k, v, at, at, position)

    out, pull = jax.vjp(forward, *args)
    return out, pull(jnp.asarray(d))

  want, got = (run(core, q, k, v, params) for core in ("dense", "blockwise(block=4)"))
  close = functools.partial(np.testing.assert_allclose, atol=2e-5, rtol=1e-4)
  jax.tree.map(close, got, want)
