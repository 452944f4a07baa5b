"""What encodings have in common that sharpen attention in longer texts."""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.positions.base import Params, Wrapper
from transformer_jax.positions.coords import Coords


@dataclasses.dataclass(frozen=True)
class Tempered(Wrapper):
  """Multiplies queries when the encoding has turned them; a subclass says by what.

  What the encoding adds to scores without reading the query, as a bias, stays as it is.
  """

  def factor(self, params: Params, q_at: Coords, k_at: Coords) -> jax.Array:
    """Returns the factor, which broadcasts to q_BLHK."""
    raise NotImplementedError

  def turn(self, params, q_BLHK, k_BMHK, q_at, k_at):
    q_BLHK, k_BMHK = self.encoding.turn(params, q_BLHK, k_BMHK, q_at, k_at)
    factor_BLHK = self.factor(params, q_at, k_at)
    return (q_BLHK * factor_BLHK).astype(q_BLHK.dtype), k_BMHK


def keys_seen(q_at: Coords, k_at: Coords) -> jax.Array:
  """Returns how many keys each query sees, n_BL11; at least 1.

  In causal text that is the position + 1, but also right where positions are randomized
  or shared, or where tokens look ahead.
  """
  early_BLM = k_at.order_BL[:, None, :] <= q_at.sees_BL[:, :, None]
  return _count(early_BLM & _same_text(q_at, k_at))


def text_length(q_at: Coords, k_at: Coords) -> jax.Array:
  """Returns how many tokens each query's text has so far, n_BL11; at least 1."""
  return _count(_same_text(q_at, k_at))


def _same_text(q_at, k_at):
  same_BLM = q_at.segment_BL[:, :, None] == k_at.segment_BL[:, None, :]
  return same_BLM & k_at.real_BL[:, None, :]


def _count(true_BLM):
  n_BL = jnp.sum(true_BLM, axis=-1, dtype=jnp.int32)
  return jnp.maximum(n_BL, 1)[:, :, None, None]
