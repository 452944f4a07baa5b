"""DAPE's network for some rows of scores after another, against all at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from transformer_jax.axes import Dims
from transformer_jax.positions import bind, coords, dape, positions

B, L, H, K = 2, 7, 3, 4
DIMS = Dims(V=2, D=H * K, H=H, F=1, L=L, K=K)


def corrected(encoding, params, s_BHLM):
  """Returns scores, and gradients of a weighted sum of them."""
  at, zero_BLHK = coords.consecutive(1, L), jnp.zeros((B, L, H, K))
  mask_BLM = jnp.tri(L, dtype=bool)[None]

  def full_scores(params, s_BHLM):
    bound = bind(encoding, params, DIMS)
    at_both = zero_BLHK, zero_BLHK, at, at
    found = bound.full_scores(s_BHLM, *at_both, mask_BLM, K**-0.5)
    return jnp.where(mask_BLM[:, None], found, 0.0)

  out, pull = jax.vjp(full_scores, params, s_BHLM)
  return out, pull(jnp.sin(jnp.arange(out.size, dtype=jnp.float32)).reshape(out.shape))


@pytest.mark.parametrize("spec", ["dape(alibi_learned, 5)", "dape(kerple_log, 5, 3)"])
def test_rows_after_another_are_rows_at_once(spec, monkeypatch):
  encoding = positions.build(spec)
  params = encoding.init(jax.random.key(0), DIMS)
  s_BHLM = jax.random.normal(jax.random.key(1), (B, H, L, L))
  at_once = corrected(encoding, params, s_BHLM)
  monkeypatch.setattr(dape, "PAIRS", 3 * L + 1)  # three rows: 7 do not divide
  blocks = corrected(encoding, params, s_BHLM)
  for one, other in zip(jax.tree.leaves(at_once), jax.tree.leaves(blocks), strict=True):
    assert np.any(one)
    np.testing.assert_allclose(one, other, atol=2e-5)
