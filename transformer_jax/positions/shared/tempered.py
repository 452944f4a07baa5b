"""Base class of length-dependent attention temperatures."""

import dataclasses

import jax
import jax.numpy as jnp

from transformer_jax.positions.base import Params
from transformer_jax.positions.coords import Coords
from transformer_jax.positions.shared.wrapper import Wrapper


@dataclasses.dataclass(frozen=True)
class Tempered(Wrapper):
  """Base class of wrappers that scale queries after `transform_qk`, by `factor`.

  A bias of the inner encoding, which does not read queries, is not scaled.

  >>> import jax.numpy as jnp
  >>> import transformer_jax as tj
  >>> class Twice(tj.positions.shared.tempered.Tempered):
  ...   def factor(self, params, q_at, k_at):
  ...     return 2.0
  >>> at, x_BLHK = tj.positions.coords.consecutive(1, 1), jnp.ones((1, 1, 1, 2))
  >>> print(*Twice("none").transform_qk({}, x_BLHK, x_BLHK, at, at))
  [[[[2. 2.]]]] [[[[1. 1.]]]]
  """

  def factor(self, params: Params, q_at: Coords, k_at: Coords) -> jax.Array:
    """Returns the factor on queries, broadcastable to q_BLHK."""
    raise NotImplementedError

  def transform_qk(self, params, q_BLHK, k_BMHK, q_at, k_at):
    q_BLHK, k_BMHK = self.encoding.transform_qk(params, q_BLHK, k_BMHK, q_at, k_at)
    factor_BLHK = self.factor(params, q_at, k_at)
    return (q_BLHK * factor_BLHK).astype(q_BLHK.dtype), k_BMHK


def tokens_in_horizon(q_at: Coords, k_at: Coords) -> jax.Array:
  """Returns the number of tokens in each query's horizon, n_BL11; at least 1.

  In causal text the order + 1; an attention variant's mask, such as a window, takes
  nothing away. Also right with randomized or shared positions, and in
  bidirectional attention.
  """

  def count(query):  # in memory linear in the length, some queries at a time
    segment_B, horizon_B = query
    early_BM = k_at.order_BL <= horizon_B[:, None]
    same_BM = k_at.segment_BL == segment_B[:, None]
    return jnp.sum(early_BM & same_BM & k_at.real_BL, axis=-1, dtype=jnp.int32)

  queries = q_at.segment_BL.T, q_at.horizon_BL.T
  n_BL = jax.lax.map(count, queries, batch_size=128).T
  return jnp.maximum(n_BL, 1)[:, :, None, None]


def text_length(q_at: Coords, k_at: Coords) -> jax.Array:
  """Returns the length so far of each query's text, n_BL11; at least 1."""
  return tokens_in_horizon(q_at.bidirectional(), k_at)
