"""What an attention core is: one call, many ways to visit tiles of scores."""

from typing import Protocol

import jax
import jax.numpy as jnp

from transformer_jax.positions import Bound, Coords, PositionalEncoding
from transformer_jax.spec import Registry

cores = Registry("attention core")
MASKED = -1e30  # below any score, yet finite: an empty row must not make NaN


class Core(Protocol):
  """Attends from queries to keys and mixes values, all in the float type of the values.

  q_BLHK, k_BMHK, v_BMHK, already turned by the encoding; `q_at` and `k_at` say where
  they are and who sees whom. A query that sees no key gets zeros. `scale` multiplies
  the dot products; None: 1 / sqrt of the width that queries have here.
  """

  def __call__(
    self,
    q_BLHK: jax.Array,
    k_BMHK: jax.Array,
    v_BMHK: jax.Array,
    q_at: Coords,
    k_at: Coords,
    position: Bound,
    scale: float | None = None,
  ) -> jax.Array: ...

  def refusal(self, encoding: PositionalEncoding) -> str | None:
    """Returns why this core cannot serve an encoding, or None."""


def visible(q_at: Coords, k_at: Coords) -> jax.Array:
  """Returns which keys each query may look at, [B, L, M]; B is 1 where shared.

  Order decides, never the position: coupled and randomized positions are not monotone.
  """
  same_BLM = q_at.segment_BL[:, :, None] == k_at.segment_BL[:, None, :]
  early_BLM = k_at.order_BL[:, None, :] <= q_at.sees_BL[:, :, None]
  return same_BLM & early_BLM & k_at.real_BL[:, None, :]


def tile_scores(
  q_BLHK: jax.Array,
  k_BMHK: jax.Array,
  q_at: Coords,
  k_at: Coords,
  position: Bound,
  scale: float | jax.Array,
  seen_BLM: jax.Array,
) -> jax.Array:
  """Returns float32 scores s_BHLM of a tile, before the mask: all cores share this."""
  s_BHLM = scale * jnp.einsum(
    "BLHK,BMHK->BHLM", q_BLHK, k_BMHK, preferred_element_type=jnp.float32
  )
  return position.score(s_BHLM, q_BLHK, k_BMHK, q_at, k_at, seen_BLM, scale)


def mix(w_BHLM: jax.Array, v_BMHK: jax.Array, pos_BL, pos_BM, position: Bound):
  """Returns weighted values o_BLHK with what the encoding adds to them, in float32."""
  out_BLHK = jnp.einsum(
    "BHLM,BMHK->BLHK",
    w_BHLM.astype(v_BMHK.dtype),
    v_BMHK,
    preferred_element_type=jnp.float32,
  )
  return out_BLHK + position.values(w_BHLM, pos_BL, pos_BM)
